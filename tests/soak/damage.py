"""Damaged files: a run that goes on builds anew what is damaged, or falls back, or ends in one line.

What nothing can know, such as another letter in the text of a row, may stay; rows may not be lost by it.
"""

import io
import json
import shutil
import tarfile
from pathlib import Path
from random import Random

from tests.soak import shared
from tests.soak.jobs import JOBS, whole
from tests.soak.judge import close, differences, faults
from tests.soak.kills import before
from tests.soak.runs import Run
from tests.soak.world import World

PLAIN = (".jsonl", ".json", ".yaml", ".png", ".md", ".html")
"""Endings of files that nothing verifies; caches and checkpoints carry hashes."""
HASHED = ("cache", "checkpoints")
HALF = 0.3
"""The share of trainings that were killed while they built their cache."""


def damage(rng: Random, file: Path) -> str:
    """Harm a file -> how."""
    data = file.read_bytes()
    at = rng.randrange(len(data)) if data else 0
    flipped = bytearray(data or b"x")
    flipped[at] ^= 1 << rng.randrange(8)
    harms = {
        "bit": bytes(flipped),
        "cut": data[:at],
        "empty": b"",
        "zeros": bytes(len(data)),
        "hole": data[:at] + bytes(len(data[at : at + 64])) + data[at + 64 :],
        "random": rng.randbytes(len(data)),
        "longer": data + rng.choice((b"\0" * 99, b"\n", b"{", rng.randbytes(9))),
        "doubled": data + data[-200:],
    }
    how = rng.choice((*harms, "gone"))
    file.unlink()  # it may be a link
    if how != "gone":
        file.write_bytes(harms[how])
    return how


class Damage:
    """Tries of one damaged file each."""

    def __init__(self, world: World) -> None:
        self.world, self.place = world, world.root / "whole"
        self.known = {verb: whole(job, world, self.place / verb) for verb, job in JOBS.items()}
        shared.make(world, world.root / "shared")
        self.shard = self._tar(self.place / "tar")
        self.scores = self._scores(world.must(self.place / "tar", *self._score_shard()).folder)

    def attempt(self, rng: Random, folder: Path) -> tuple[int, list[str]]:
        """One damaged file and the command that meets it -> (1, faults)."""
        verb = rng.choice([*JOBS, "train", "tar", "tar", "shared"])
        if verb == "tar":
            return 1, self._shard(rng, folder)
        return 1, self._shared(rng, folder) if verb == "shared" else self._resumed(verb, rng, folder)

    def _resumed(self, verb: str, rng: Random, folder: Path) -> list[str]:
        job = JOBS[verb]
        words = [*job.words(self.world), *job.resume.split()]
        if verb == "train" and rng.random() < HALF:
            Run(words, folder, before=before(rng.randint(5, 40))).wait()
        else:
            shutil.copytree(self.place / verb, folder, dirs_exist_ok=True)
        files = sorted(
            p for p in folder.rglob("*") if p.is_file() and p.name[:3] != "log" and p.name != ".lock"
        )
        if not files:
            return []
        file = rng.choice(files)
        name = f"{verb}, {file.relative_to(folder)}: {damage(rng, file)}"
        run = Run(words, folder).wait()
        wrong = [f"{name}: {fault}" for fault in faults(run, 0, 3)]
        if run.code != 0:
            return wrong
        rows, expected = job.read(folder), self.known[verb]
        unknown = file.suffix in PLAIN and not any(part in HASHED for part in file.parts)
        if unknown and (len(rows) >= len(expected) or file.name in run.text):
            return wrong
        return wrong + [f"{name}: {change}" for change in differences(expected, rows)]

    def _shared(self, rng: Random, folder: Path) -> list[str]:
        """A file of weights, of a model or of a table: nobody can know of every bit, and nothing crashes."""
        source, _, command = rng.choice(shared.COMMANDS)
        shared.copy(self.world.root / "shared" / source, folder / "in")
        file = rng.choice(sorted(path for path in (folder / "in").rglob("*") if path.is_file()))
        name = f"{source}, {file.relative_to(folder)}: {damage(rng, file)}"
        run = Run(command.format(**vars(self.world)).split(), folder).wait()
        return [f"{name}: {fault}" for fault in faults(run, 0, 3)]

    def _tar(self, folder: Path) -> bytes:
        folder.mkdir(parents=True)
        form = {"format": tarfile.USTAR_FORMAT}
        with tarfile.open(folder / "in.tar", "w", **form) as shard:  # type: ignore[call-overload]
            for file in sorted(self.world.samples.iterdir()):
                info = tarfile.TarInfo(file.name)
                info.size = file.stat().st_size
                shard.addfile(info, io.BytesIO(file.read_bytes()))
        return (folder / "in.tar").read_bytes()

    def _score_shard(self) -> list[str]:
        return ["score", "in.tar", "--rewards", "saturation,grid", "-o", "out.jsonl", "--workers", "0"]

    def _shard(self, rng: Random, folder: Path) -> list[str]:
        """Every image of a shard is scored as it was, or there is a row with an error and exit code 3."""
        (folder / "in.tar").write_bytes(self.shard)
        how = damage(rng, folder / "in.tar")
        run = Run(self._score_shard(), folder).wait()
        wrong = [f"shard, {how}: {fault}" for fault in faults(run, 0, 3)]
        if run.code == 2:
            return wrong
        scores = self._scores(folder)
        lost = [name for name in self.scores if name not in scores]
        if run.code == 0 and lost:
            wrong.append(f"shard, {how}: {len(lost)} images lost in silence, first {lost[0]}")
        changed = [
            name for name in self.scores if name in scores and not close(self.scores[name], scores[name])
        ]
        return wrong + [f"shard, {how}: another score for {name}" for name in changed[:3]]

    def _scores(self, folder: Path) -> dict[str, list[float]]:
        rows = [json.loads(line) for line in (folder / "out.jsonl").open(encoding="utf-8")]
        return {row["file"]: [row["saturation"], row["grid"]] for row in rows if row["error"] is None}
