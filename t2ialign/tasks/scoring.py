"""Rewards over images, into a table: a journal keeps what is scored, and a killed run goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from t2ialign.io import locks, naming
from t2ialign.scoring import output as tables
from t2ialign.tasks.images import Place
from t2ialign.tasks.scorers import Scoring, device_of

if TYPE_CHECKING:
    import pyarrow as pa

    from t2ialign.scoring.engine import Row
    from t2ialign.scoring.items import Source
    from t2ialign.scoring.journal import Journal


TOP = 24
"""The default number of images of each reward on a page."""


def process() -> tuple[int, int]:
    """(number of this process, how many there are), as launchers set them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def run(
    how: Scoring,
    where: Place,
    output: Path | None,
    *,
    html: Path | None = None,
    top: int = TOP,
    resume: bool = False,
) -> pa.Table:
    """Score the images of this process -> the table of them, which is written where there is an output.

    A process that is alone writes the page too. Raises ValueError for an output in use or of another kind,
    for settings that another run had, and as the source and the rewards do.
    """
    check_page(top)
    rank, world = process()
    with _held(output, rank, world) as path:
        how.check()
        _check_output(path, resume=resume)
        source = where.open()
        if where.on_disk and path.suffix == ".parquet" and _among(path, source, Path(where.images)):
            raise ValueError(
                f"got {naming.given('output', path)} among the shards of {where.images}; expected it "
                "elsewhere; choose another"
            )
        scores = _scored(how, where, source, path, resume=resume)
        if output is not None:
            tables.write(scores, path)
        if html is not None and world == 1:
            write_page(scores, source, html, top=top)
        return scores


@contextmanager
def _held(output: Path | None, rank: int, world: int) -> Iterator[Path]:
    """The file of this process while nobody else holds it; one for the moment where none is named."""
    if output is None:
        with TemporaryDirectory(prefix="t2ialign-") as folder:
            yield Path(folder) / "scores.jsonl"
        return
    tables.check_output(output)
    path = tables.rank_path(output, rank, world)
    with locks.hold_file(path, naming.prefix("output"), shared=True):
        yield path


def _check_output(path: Path, *, resume: bool) -> None:
    from t2ialign.scoring.journal import path_of

    if path.exists() and not resume:
        raise ValueError(
            f"got {path} from an earlier run; expected none; keep its scores with {naming.resuming()}, "
            f"delete it and its journal, or choose another {naming.name('output')}"
        )
    book = path_of(path)
    if path.exists() and not book.exists():
        raise ValueError(
            f"got {path} without {book.name}; expected both, to go on; delete it, or choose another "
            f"{naming.name('output')}"
        )


def _scored(how: Scoring, where: Place, source: Source, path: Path, *, resume: bool) -> pa.Table:
    """Score what the journal of `path` lacks -> the table of this process's rows."""
    from t2ialign.scoring.journal import Journal, answering, path_of

    rank, world = process()
    text = str(where.images) if where.on_disk else source.name
    of: dict[str, object] = {
        "source": str(Path(text).resolve()) if where.on_disk and Path(text).exists() else text,
        "rewards": {name: answering(how.options.get(name, {})) for name in how.rewards},
        "precision": how.precision,
        **{"rank": rank, "world": world},
    }
    with closing(Journal(path_of(path), of, resume=resume)) as journal:
        todo = peek(journal.todo(source.items(rank, world)))
        if todo is not None:
            batches = _on_ray(how, where.open, journal) if how.ray else _here(how, where, journal, todo)
            _collect(batches, journal, source)
        journal.push()
        return tables.table(journal.rows(), list(how.rewards))


def _here(how: Scoring, where: Place, journal: Journal, items: Iterable[Any]) -> Iterator[list[Row]]:
    import torch

    from t2ialign.scoring.decode import default_workers
    from t2ialign.scoring.engine import Engine

    device = device_of(how.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    usual = default_workers() if where.on_disk else 0
    engine = Engine(
        how.load(),
        device=device,
        batch_size=how.batch_size,
        workers=usual if how.workers is None else how.workers,
        precision=how.precision,
        proven=bool(journal.done),
        max_batch_pixels=how.max_batch_pixels,
    )
    return engine.score(items)


def _on_ray(how: Scoring, opened: Callable[[], Source], journal: Journal) -> Iterator[list[Row]]:
    from t2ialign.scoring import ray_data

    options = {name: dict(some) for name, some in how.options.items()}
    job = ray_data.Job(
        partial(opened), list(how.rewards), options, how.batch_size, how.precision, how.max_batch_pixels
    )
    assert how.ray, "there are workers, or Ray is not asked for"
    return ray_data.score(job, journal, workers=how.ray)


def _collect(batches: Iterable[list[Row]], journal: Journal, source: Source) -> None:
    """Rows into the journal, with a bar that shows images a second; the first process alone shows one."""
    from t2ialign.progress import Progress

    rank, world = process()
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


def merge(
    parts: Sequence[str | Path],
    output: Path,
    source: str | None = None,
    where: Mapping[str, Any] | None = None,
    *,
    html: Path | None = None,
    top: int = TOP,
) -> pa.Table:
    """Join the tables of several processes into `output`, and write the page of their `source` if asked for.

    where: the other fields of its `Place`. Raises ValueError as `output.merge` and the source do.
    """
    tables.check_output(output)
    check_page(top)
    with locks.hold_file(output, naming.prefix("output")):
        scores = tables.merge(_files(parts))
        tables.write(scores, output)
    if html is not None and source is not None:
        write_page(scores, Place(images=source, **(where or {})).open(), html, top=top)
    return scores


def write_page(scores: pa.Table, source: Source, html: Path, *, top: int) -> None:
    """Write the page of the best and worst images of each reward."""
    from t2ialign.scoring import gallery

    gallery.write(scores, source, html, top=top)


def check_page(top: int) -> None:
    """Raises ValueError for a number of images below 1."""
    if top < 1:
        raise ValueError(f"got {naming.given('top', top)}; expected at least 1; change it")


def peek(items: Iterator[Any]) -> Iterator[Any] | None:
    """The same items, or None if there are none: loading the rewards in vain takes long."""
    first = next(items, None)
    return None if first is None else chain([first], items)


def _among(path: Path, source: Source, root: Path) -> bool:
    """Whether the next run would take the output for a part of the source."""
    shards = root.is_dir() and any(name.endswith(".parquet") for name in source.shards)
    return shards and path.resolve().is_relative_to(root.resolve())


def _files(patterns: Iterable[str | Path]) -> list[Path]:
    """Files that exist by these names or patterns. Raises ValueError for one that fits nothing."""
    files: list[Path] = []
    for path in map(Path, patterns):
        paths = [path] if path.is_file() else sorted(path.parent.glob(path.name))
        if not paths:
            raise ValueError(
                f"got {naming.given('merge', path)}, which fits no file; expected the parts of a run; check "
                "the pattern"
            )
        files += paths
    return list(dict.fromkeys(files))
