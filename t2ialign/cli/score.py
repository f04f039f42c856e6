"""t2ialign score: any number of rewards over any number of pictures, into one table; a killed run goes on."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.cli.options import add_columns, add_pace
from t2ialign.io import locks
from t2ialign.scoring.budget import check_max_batch_pixels

if TYPE_CHECKING:
    import pyarrow as pa

    from t2ialign.scoring.engine import Row
    from t2ialign.scoring.items import Source
    from t2ialign.scoring.journal import Journal

BROKEN = 3
"""Exit code when some picture could not be scored."""
SHOWN = 5
"""Errors that are quoted on the terminal; the rest are in the table."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "source",
        nargs="?",
        help="The images: a folder, manifest, .jsonl, .csv or .parquet table, .tar shards or Hub dataset.",
    )
    parser.add_argument(
        "--rewards",
        metavar="A,B,...",
        help="The rewards, separated by commas: names (docs/rewards.md), or modules as package.module.",
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE|TEXT",
        help="A table of file names and prompts, or one prompt for all images (default: the text in NAME.txt "
        "beside each image).",
    )
    parser.add_argument(
        "--prompts-from-names",
        action="store_true",
        help='Take each prompt from the name of the file, such as "a red cat" from a_red_cat_01.png.',
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="The table to write: .parquet, .csv or .jsonl."
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="Also write a page that shows the best and the worst images.",
    )
    parser.add_argument(
        "--top",
        type=int,
        default=24,
        metavar="N",
        help="The number of images per reward on the page of --html (default: 24).",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="REWARD:KEY=VALUE",
        help="An option of a reward, such as pickscore:weights=model.safetensors. May be repeated.",
    )
    add_columns(parser)
    add_pace(parser)
    parser.add_argument(
        "--resume", choices=("latest",), help="Continue an interrupted run that wrote to --output."
    )
    parser.add_argument(
        "--merge",
        nargs="+",
        metavar="FILE",
        help="Join the tables that several processes have written into the one of --output.",
    )
    parser.add_argument(
        "--ray", type=int, metavar="N", help="Run on a Ray cluster with N workers that score images."
    )


def run(args: argparse.Namespace) -> int:
    """Score or merge, print a summary; the exit code is 3 if a picture could not be scored.

    Of several processes (`accelerate launch`) each writes its part and leaves with 0, since another code
    would make the launcher stop the others. Raises ValueError for bad arguments.
    """
    _check(args)
    from t2ialign.scoring import output

    rank, world = (
        int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))
    )
    path = args.output if args.merge else output.rank_path(args.output, rank, world)
    with locks.hold_file(path, shared=not args.merge):
        return _merge(args) if args.merge else _score(args, path, rank, world)


def _merge(args: argparse.Namespace) -> int:
    from t2ialign.scoring import output

    scores = output.merge(_files(args.merge))
    output.write(scores, args.output)
    source = open_(args) if args.source else None
    return _finish(args, scores, source, args.output)


def _score(args: argparse.Namespace, path: Path, rank: int, world: int) -> int:
    from t2ialign.scoring import output

    scores, source = score(args, path, rank, world)
    output.write(scores, path)
    if world == 1:
        return _finish(args, scores, source, path)
    print(f"{len(scores)} rows, {output.broken(scores)} with an error, in {path}")
    if rank == 0:
        pattern = output.rank_path(args.output, 0, world).name.replace(".rank0-", ".rank*-")
        merge = f"--merge {path.parent / pattern} -o {args.output}"
        page = f" --html {args.html}" if args.html else ""
        print(f"join all parts with: t2ialign score {args.source if page else ''} {merge}{page}")
    return 0


def score(args: argparse.Namespace, path: Path, rank: int = 0, world: int = 1) -> tuple[pa.Table, Source]:
    """Score what the journal of `path` lacks -> the table of this process's rows, and the source."""
    from t2ialign.scoring import output
    from t2ialign.scoring.journal import Journal, answering, path_of

    names, options = _rewards(args), _options(args.option)
    check_all(names, options)
    output.schema(names)
    if path.exists() and args.resume is None:
        raise ValueError(
            f"got {path} from an earlier run; expected none; keep its scores with --resume latest, delete it "
            "and its journal, or choose another --output"
        )
    book = path_of(path)
    if path.exists() and not book.exists():
        raise ValueError(
            f"got {path} without {book.name}; expected both, to go on; delete it, or choose another --output"
        )
    source = open_(args)
    if path.suffix == ".parquet" and _among(path, source, Path(args.source)):
        raise ValueError(
            f"got --output {path} among the shards of {args.source}; expected it elsewhere; choose another"
        )
    of: dict[str, object] = {
        "source": str(Path(args.source).resolve()) if Path(args.source).exists() else args.source,
        "rewards": {name: answering(options.get(name, {})) for name in names},
        "precision": args.precision,
        **{"rank": rank, "world": world},
    }
    with closing(Journal(book, of, resume=args.resume is not None)) as journal:
        todo = _peek(journal.todo(source.items(rank, world)))
        if todo is not None:
            batches = _on_ray(args, journal) if args.ray else _here(args, journal, todo)
            _collect(batches, journal, source, rank, world)
        journal.push()
        return output.table(journal.rows(), names), source


def check_all(names: Iterable[str], options: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises ValueError as `rewards.check` does for any of the names, before the first of them is loaded."""
    import rewards

    for name in names:
        rewards.check(name, **options.get(name, {}))


def open_(args: argparse.Namespace) -> Source:
    """The source that the arguments name. Raises ValueError if there is no such thing."""
    from t2ialign.scoring.prompts import parse_prompts
    from t2ialign.scoring.rows import Columns
    from t2ialign.scoring.sources import open_source

    prompts = parse_prompts(args.prompts, names=args.prompts_from_names, text_column=args.prompt_column)
    return open_source(args.source, prompts, Columns(args.image_column, args.prompt_column, args.split))


def _here(args: argparse.Namespace, journal: Journal, items: Iterable[Any]) -> Iterator[list[Row]]:
    import torch

    import rewards
    from rewards.device import default_device
    from t2ialign.scoring.decode import default_workers
    from t2ialign.scoring.engine import Engine

    own = default_device()
    if own.type == "cuda":
        own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    try:
        device = torch.device(args.device or own)
    except RuntimeError as error:
        raise ValueError(
            f"got --device {args.device}; expected cpu, cuda, cuda:1 or mps; change it"
        ) from error
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, True):
        raise ValueError(f"got --device {device} on a machine without it; expected cpu; change it")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    engine = Engine(
        rewards.load_all(_rewards(args), _options(args.option)),
        device=device,
        batch_size=args.batch_size,
        workers=default_workers() if args.workers is None else args.workers,
        precision=args.precision,
        proven=bool(journal.done),
        max_batch_pixels=args.max_batch_pixels,
    )
    return engine.score(items)


def _on_ray(args: argparse.Namespace, journal: Journal) -> Iterator[list[Row]]:
    from t2ialign.scoring import ray_data

    names, options = _rewards(args), _options(args.option)
    job = ray_data.Job(
        partial(open_, args), names, options, args.batch_size, args.precision, args.max_batch_pixels
    )
    return ray_data.score(job, journal, workers=args.ray)


def _collect(batches: Iterable[list[Row]], journal: Journal, source: Source, rank: int, world: int) -> None:
    """Rows into the journal, with a bar that shows pictures a second; the first process alone shows one."""
    from t2ialign.progress import Progress

    total = None if source.count is None else -(-source.count // world)
    known = len(journal.done)
    with Progress(total=total, initial=known, desc="score", unit="image", disable=rank > 0) as bar:
        errors = 0
        for rows in batches:
            journal.add(rows)
            errors += sum(row["error"] is not None for row in rows)
            if errors:
                bar.set_postfix({"errors": errors})
            bar.update(len(rows))


def _finish(args: argparse.Namespace, scores: pa.Table, source: Source | None, path: Path) -> int:
    import pyarrow.compute as pc

    from t2ialign.io.messages import one_line
    from t2ialign.scoring import output

    output.show(output.summarise(scores), f"{len(scores)} rows in {path}")
    if args.html is not None and source is not None:
        from t2ialign.scoring import gallery

        gallery.write(scores, source, args.html, top=args.top)
        print(f"best and worst in {args.html}")
    if not (errors := output.broken(scores)):
        return 0
    for text in scores.filter(pc.is_valid(scores["error"])).slice(0, SHOWN)["error"].to_pylist():
        print(one_line(f"not scored: {text}"))
    print(f"{errors} of {len(scores)} rows could not be scored in full; their column error says why")
    return BROKEN


def _among(path: Path, source: Source, root: Path) -> bool:
    """Whether the next run would take the output for a part of the source."""
    shards = root.is_dir() and any(name.endswith(".parquet") for name in source.shards)
    return shards and path.resolve().is_relative_to(root.resolve())


def _peek(items: Iterator[Any]) -> Iterator[Any] | None:
    """The same items, or None if there are none: loading the rewards for nothing takes long."""
    from itertools import chain

    first = next(items, None)
    return None if first is None else chain([first], items)


def _check(args: argparse.Namespace) -> None:
    from t2ialign.scoring.output import check_output

    for given, name in (
        (args.output, "--output"),
        (args.merge or args.source, "a source"),
        (args.merge or args.rewards, "--rewards"),
    ):
        if not given:
            raise ValueError(f"got no {name.removeprefix('a ')}; expected {name}; see t2ialign score --help")
    check_output(args.output)
    check_max_batch_pixels(args)
    if args.html is not None and args.source is None:
        raise ValueError(
            "got --html without a source; expected one, for the pictures; name it before --merge"
        )
    for name, least in (("batch_size", 1), ("workers", 0), ("top", 1), ("ray", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"got --{name.replace('_', '-')} {value}; expected at least {least}; change it")


def _rewards(args: argparse.Namespace) -> list[str]:
    names = [name.strip() for name in args.rewards.split(",") if name.strip()]
    if not names:
        raise ValueError("got no name in --rewards; expected at least one, such as clipscore; add it")
    return list(dict.fromkeys(names))


def _options(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """ "pickscore:weights=x" -> {"pickscore": {"weights": "x"}}; values are read as YAML."""
    from t2ialign.io import plain_yaml

    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        name, colon, key = key.rpartition(":")
        if not (name and key and equals and colon):
            raise ValueError(f"got --option {text!r}; expected REWARD:KEY=VALUE; write it so")
        try:
            found.setdefault(name, {})[key] = plain_yaml.read(value)
        except ValueError as error:
            raise ValueError(
                f"got --option {name}:{key} with a value that is not YAML ({error}); expected "
                "REWARD:KEY=VALUE; quote the value"
            ) from error
    return found


def _files(patterns: Iterable[str]) -> list[Path]:
    """Files that exist by these names or patterns. Raises ValueError for one that fits nothing."""
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        paths = [path] if path.is_file() else sorted(path.parent.glob(path.name))
        if not paths:
            raise ValueError(
                f"got --merge {pattern}, which fits no file; expected the parts of a run; check it"
            )
        found += paths
    return list(dict.fromkeys(found))
