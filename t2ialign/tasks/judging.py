"""Key points judged on images, into a journal, tables and a page; a killed run goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.io import locks, naming
from t2ialign.io.paths import check_place
from t2ialign.scoring.budget import MAX_BATCH_PIXELS, check_max_batch_pixels
from t2ialign.tasks.points_to_judge import Points, finder, items_to_judge, wanted

if TYPE_CHECKING:
    from rich.table import Table

    from rewards.keypoints.evaluator import AlignEvaluator
    from t2ialign.scoring.items import Item, Source
    from t2ialign.scoring.journal import Journal
    from t2ialign.web.embedded import Shown

JOURNAL = "journal.jsonl"
BACKENDS = ("oracle", "yes_no", "written", "head")

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Judging:
    """What is judged, who finds the key points, and who judges them."""

    images: Any
    """A source of `score` on disk, or samples in a folder."""
    points: Path | None
    extract: str | None
    extract_url: str | None
    extract_options: Mapping[str, Any]
    backend: str
    weights: str | None
    url: str | None
    options: Mapping[str, Any]
    """Options of the model that judges."""
    batch_size: int
    max_batch_pixels: int = MAX_BATCH_PIXELS
    output: Path

    @property
    def source(self) -> str:
        """The images by one name. Raises ValueError for images that lie nowhere on disk."""
        from t2ialign.tasks.evaluating import place_of

        place = place_of(self.images)
        if place is None:
            raise ValueError(
                "got images in memory; expected a folder of samples; give sample an output, and pass that"
            )
        return str(self.images) if isinstance(self.images, str) else str(place)


@dataclass(frozen=True)
class KeypointResult:
    """The result of judging: figures over all key points and by kind, and every verdict."""

    output: Path
    figures: dict[str, Any] = field(repr=False)
    """The content of keypoints.json."""
    table: Table = field(repr=False)
    rows: list[Row] = field(repr=False)
    """One for each image: file, prompt, its verdicts, and its error."""

    @property
    def errors(self) -> list[str]:
        """Why images could not be judged, one line each; none if all were."""
        return [row["error"] for row in self.figures["errors"]]


def run(how: Judging, *, resume: bool = False) -> KeypointResult:
    """Judge what has no verdict yet, and write the results.

    Raises ValueError for bad settings, an output in use, and images without a key point.
    """
    _check(how)
    with locks.hold_folder(how.output, naming.prefix("output")):
        if not resume:
            advice = f"keep its verdicts with {naming.resuming()}, or "
            locks.check_free(how.output, naming.prefix("output"), advice=advice)
        return _judged(how, resume=resume)


def _judged(how: Judging, *, resume: bool) -> KeypointResult:
    from t2ialign.scoring.journal import Journal
    from t2ialign.scoring.prompts import Prompts
    from t2ialign.scoring.rows import Columns
    from t2ialign.scoring.sources import open_source
    from t2ialign.web import keypoint_report

    source, of = open_source(how.source, Prompts(), Columns()), _of(how)
    points, total = wanted(source, finder(how))
    file = how.output / JOURNAL
    with closing(Journal(file, of, resume=resume, done=is_read, whole=has_verdicts)) as journal:
        _judge(how, journal, items_to_judge(source, points), points, total)
        rows = sorted(journal.rows(), key=lambda row: (row["shard"], row["row"]))
    bare = sum(some == [] for some in points.values())
    images = _images(source, keypoint_report.missing(rows))
    figures, table = keypoint_report.write(
        how.output, of, rows, prompts_without_key_points=bare, images=images
    )
    return KeypointResult(how.output, figures, table, rows)


def _images(source: Source, rows: Sequence[Mapping[str, Any]]) -> dict[str, Shown]:
    """The images of some of the journal's rows, by id."""
    from t2ialign.scoring.thumbnails import thumbnails

    ids = {(row["shard"], row["row"]): row["id"] for row in rows}
    files = {(row["shard"], row["row"]): row["file"] for row in rows}
    return {ids[place]: image for place, image in thumbnails(source, files)}


def is_read(row: Row) -> bool:
    """Whether a journal's row has all its verdicts; one with an unreadable answer is judged again."""
    return row["error"] is None and all(verdict["match"] is not None for verdict in row["verdicts"])


def has_verdicts(row: Row) -> bool:
    """Whether a journal's row is one that judging writes."""
    verdicts = row.get("verdicts")
    if not isinstance(verdicts, list) or (verdicts and not isinstance(row.get("prompt"), str)):
        return False
    return all(
        isinstance(verdict, dict)
        and {"kind", "description", "match", "reason"} <= verdict.keys()
        and isinstance(verdict["match"], float | int | None)
        for verdict in verdicts
    )


def _judge(how: Judging, journal: Journal, items: Iterable[Item], points: Points, total: int) -> None:
    """Rows into the journal for every image without verdicts."""
    from t2ialign.progress import Progress

    todo = journal.todo(items)
    first = next(todo, None)
    if first is None:
        return
    from t2ialign.scoring.judged import judged_rows

    evaluator = _evaluator(how)
    with Progress(initial=len(journal.done_before), total=total, desc="keypoints", unit="image") as bar:
        stream = chain([first], todo)
        while batch := list(islice(stream, how.batch_size)):
            for rows in judged_rows(evaluator, batch, points, how.max_batch_pixels):
                journal.add(rows)
                journal.push()
                bar.update(len(rows))


def _evaluator(how: Judging) -> AlignEvaluator:
    import rewards
    from rewards.device import default_device
    from rewards.keypoints.evaluator import AlignEvaluator

    given = {"weights": how.weights, "url": how.url}
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    options |= how.options
    evaluator = rewards.load("evaluator", backend=how.backend, **options).to(default_device())
    assert isinstance(evaluator, AlignEvaluator), "that is what the name stands for"
    return evaluator


def _of(how: Judging) -> dict[str, Any]:
    """What the verdicts are of: a resumed run must be of the same."""
    from t2ialign.data.sources import identity
    from t2ialign.scoring.journal import answering

    there = Path(how.source).exists()
    return {
        "samples": str(Path(how.source).resolve()) if there else how.source,
        "points": identity(str(how.points)) if how.points else None,
        **{
            "extract": how.extract,
            "extract_options": answering(how.extract_options),
        },
        **{"backend": how.backend, "weights": how.weights, "url": how.url},
        "options": answering(how.options),
    }


def _check_models(how: Judging) -> None:
    """Raises ValueError for models that are to be on this machine and are not."""
    from rewards.weights import check_there

    models = {"weights": (how.weights, how.url), "extract": (how.extract, how.extract_url)}
    for setting, (name, url) in models.items():
        if name is not None and url is None:
            check_there(name, naming.given(setting, name))


def _check(how: Judging) -> None:
    if how.backend not in BACKENDS:
        raise ValueError(f"got {naming.given('backend', how.backend)}; expected one of {', '.join(BACKENDS)}")
    if how.batch_size < 1:
        raise ValueError(f"got {naming.given('batch_size', how.batch_size)}; expected at least 1; raise it")
    if how.points is not None and not (how.points.is_file() or how.points.is_dir()):
        raise ValueError(
            f"got {naming.given('points', how.points)}, which does not exist; expected a table; check the "
            "path"
        )
    if how.extract is None and (how.extract_url or how.extract_options):
        raise ValueError(
            f"got {naming.name('extract_url')} or {naming.name('extract_options')} without "
            f"{naming.name('extract')}; expected its model; name it"
        )
    if how.extract is not None and how.points is not None:
        raise ValueError(
            f"got {naming.name('points')} and {naming.name('extract')}; expected one source of key points; "
            "drop the other"
        )
    if how.backend == "head" and how.weights is None:
        raise ValueError(
            f"got {naming.given('backend', 'head')} without {naming.name('weights')}; expected its folder; "
            "name it"
        )
    check_max_batch_pixels(how.max_batch_pixels)
    _check_models(how)
    check_place(how.output, naming.name("output"))
