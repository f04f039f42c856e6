"""Try to break the toolkit, kind by kind: python -m tests.soak [--budget SECONDS] [--seed N] [--kind ...]

Prints what was tried and what was found, each fault with what reproduces it, and exits 1 if there is any.
Every try has its own seed, made of --seed, the kind and its number: `--only NUMBER` repeats one. What a try
with a fault has left is kept in --keep.
"""

import argparse
import shutil
import sys
import tempfile
import time
from importlib import import_module
from itertools import count
from pathlib import Path
from random import Random
from typing import Protocol

from tests.soak import runs
from tests.soak.world import World

KINDS = {
    "kills": "Kills",
    "images": "Images",
    "configs": "Configs",
    "damage": "Damage",
    "at_once": "AtOnce",
}
"""The file of each kind, and the class in it."""
ENOUGH = 10
"""Faults of one kind after which it is left alone."""


class Kind(Protocol):
    """One way to break things; it is made in a world of its own."""

    def attempt(self, rng: Random, folder: Path) -> tuple[int, list[str]]:
        """Try once, in an empty folder -> how many things were tried, and the faults."""


def soak(name: str, kind: Kind, world: World, args: argparse.Namespace) -> tuple[int, list[str]]:
    """Try one kind for its budget -> how many tries, and one line a fault."""
    tries, lines, end = 0, list[str](), time.monotonic() + args.budget
    for number in count() if args.only is None else [args.only]:
        if time.monotonic() > end or len(lines) >= ENOUGH:
            break
        folder = world.root / name / str(number)
        folder.mkdir(parents=True)
        tried, faults = kind.attempt(Random(f"{args.seed} {name} {number}"), folder)
        if world.canary.exists():
            world.canary.unlink()
            faults.append("code of a file was run")
        tries += tried
        if faults:
            kept = args.keep / f"{name}-{args.seed}-{number}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept, symlinks=True, ignore=_not_files)
            lines += [
                f"{fault} [--seed {args.seed} --kind {name} --only {number}; {kept}]" for fault in faults
            ]
        shutil.rmtree(folder)
    return tries, lines


def main(argv: list[str] | None = None) -> int:
    """Run the kinds one after the other, print their table -> 1 if there was a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--budget", type=float, default=50, help="seconds of tries of each kind (50)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all tries (0)")
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS), help="kinds to try (all)")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="repeat the try of this number alone")
    parser.add_argument("--keep", type=Path, default=Path("runs/soak"), help="where faults are kept")
    args = parser.parse_args(argv)
    runs.prepare()
    table, found = [("kind", "tries", "faults", "seconds")], list[str]()
    for name in args.kind:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="soak-") as root:
            world = World(Path(root))
            kind: Kind = getattr(import_module(f"tests.soak.{name}"), KINDS[name])(world)
            tries, lines = soak(name, kind, world, args)
        table.append((name, str(tries), str(len(lines)), f"{time.monotonic() - started:.0f}"))
        found += lines
        print("\n".join([f"{name}: {tries} tries, {len(lines)} faults", *lines]), flush=True)
    print(f"\nseed {args.seed}")
    for row in table:
        print(f"{row[0]:<10}" + "".join(f"{cell:>10}" for cell in row[1:]))
    return 1 if found else 0


def _not_files(folder: str, names: list[str]) -> list[str]:
    """Pipes and sockets, which cannot be copied."""
    paths = {name: Path(folder, name) for name in names}
    return [n for n, path in paths.items() if not (path.is_symlink() or path.is_file() or path.is_dir())]


if __name__ == "__main__":
    sys.exit(main())
