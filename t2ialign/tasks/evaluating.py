"""One reward over images, of a manifest or in memory: means with intervals, alone or against a baseline."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rewards.renamed import same
from t2ialign.evaluation.comparison import Summary, matching, summarise
from t2ialign.evaluation.statistics import Estimate, table
from t2ialign.io import atomic, locks, manifest, naming
from t2ialign.io.manifest import Rendered
from t2ialign.tasks.images import Place
from t2ialign.tasks.samples import Samples

if TYPE_CHECKING:
    from rewards import Reward
    from t2ialign.evaluation.manifest_scores import Score

RESULT, SCORES, BASELINE_SCORES = "evaluation.json", "scores.jsonl", "baseline_scores.jsonl"
STARTED = "evaluation_of.json"
"""The file that records, from the start, which images and reward the scores beside it belong to."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The scores of one reward: `mean` and `interval`, also by category, and each score."""

    reward: str
    columns: dict[str, Summary]
    """"scores", and with a baseline "baseline" and "difference": estimates of "all" and each category."""
    rows: list[Score]
    """One for each image: file, prompt, seed, and its score or its error."""
    baseline_rows: list[Score] | None = None
    page: Path | None = None
    """The page of images, prompts and their distribution; None without an output or for images in memory."""

    @property
    def estimate(self) -> Estimate:
        """The mean of all images with its 95 % interval. Raises ValueError if none could be scored."""
        if "all" not in self.columns["scores"]:
            raise ValueError(f"got no image that {self.reward} could score; expected one; read the errors")
        return self.columns["scores"]["all"]

    @property
    def mean(self) -> float:
        """The mean score."""
        return self.estimate.mean

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean, by a bootstrap of prompts; NaN for one prompt."""
        return self.estimate.low, self.estimate.high

    @property
    def difference(self) -> Estimate | None:
        """The mean change from the baseline at equal prompts and seeds; None without a baseline."""
        return self.columns.get("difference", {}).get("all")

    @property
    def errors(self) -> list[str]:
        """Why images could not be scored, one line each; none if all were."""
        return [row["error"] for row in [*self.rows, *(self.baseline_rows or ())] if "error" in row]

    @property
    def scale(self) -> float:
        """100 where every score is 0 or 1, so that means are shown in per cent; else 1."""
        scores = [row["score"] for row in [*self.rows, *(self.baseline_rows or ())] if "score" in row]
        return 100.0 if all(score in (0.0, 1.0) for score in scores) else 1.0

    def __repr__(self) -> str:
        """The table that the command line prints."""
        from rich.console import Console

        unit = " (per cent)" if self.scale == 100 else ""
        title = f"{self.reward}{unit}, mean [95 % interval, bootstrap by prompt]"
        console = Console(markup=False, force_jupyter=False)
        with console.capture() as captured:
            console.print(table(title, self.columns, scale=self.scale))
        return captured.get().rstrip("\n")


def run(
    images: Any,
    reward: str | Reward,
    *,
    prompts: Any = None,
    baseline: Any = None,
    batch_size: int = 64,
    seed: int = 0,
    output: Path | None = None,
    resume: bool = False,
) -> Evaluation:
    """Score the images, and those of the baseline, with one reward.

    With an output the scores and evaluation.json are written there, else nothing is. Raises ValueError for
    bad arguments, a baseline that does not match, and an output of another run.
    """
    if batch_size < 1 or seed < 0:
        raise ValueError(
            f"got {naming.given('batch_size', batch_size)} and {naming.given('seed', seed)}; expected at "
            "least 1 and 0"
        )
    import rewards
    from rewards.loading import of_images

    if isinstance(reward, list | tuple | dict):
        raise ValueError(
            "got several rewards; expected one, by name or loaded; call evaluate for each, or score"
        )
    if isinstance(reward, str):
        rewards.check(reward)
    else:
        of_images(reward)
    name = reward if isinstance(reward, str) else type(reward).__name__
    with TemporaryDirectory(prefix="t2ialign-") as scratch:
        sets = {SCORES: _rows(images, prompts, Path(scratch) / "images")}
        if baseline is not None:
            sets[BASELINE_SCORES] = _rows(baseline, prompts, Path(scratch) / "baseline")
            matching(*([(row.prompt, row.seed) for row in rows] for rows in sets.values()))
        of = {"reward": name, "source": place_of(images), "baseline": place_of(baseline)}
        with _held(output, of, Path(scratch), resume=resume) as folder:
            judge, scored = _scored(reward, name, sets, folder, batch_size)
        columns = summarise(judge, scored[SCORES], scored.get(BASELINE_SCORES), seed=seed)
    result = Evaluation(name, columns, scored[SCORES], scored.get(BASELINE_SCORES))
    return result if output is None else replace(result, page=_write(output, result, of))


def place_of(images: Any) -> Path | None:
    """The folder or file that holds the images; None for those in memory."""
    if isinstance(images, Samples):
        return images.folder
    return Path(images) if isinstance(images, str | os.PathLike) else None


def _rows(images: Any, prompts: Any, scratch: Path) -> list[Rendered]:
    """The images as a manifest has them; those in memory are put into `scratch`."""
    if (place := place_of(images)) is not None:
        if prompts is not None:
            raise ValueError(
                f"got prompts for {place}, whose manifest has them; expected them for images in memory; drop "
                "them, or see score for other tables"
            )
        return manifest.read(place)
    from t2ialign.data.images import open_rgb

    scratch.mkdir()
    seeds = images.seeds if isinstance(images, Samples) else None
    rows = []
    for item in Place(images=images, prompts=prompts).open().items():
        if item.prompt is None:
            raise ValueError(f"got no prompt for {item.file}; expected one for each image; pass prompts")
        file = f"{item.row:05d}.png"
        assert item.image is not None, "images in memory are all there"
        open_rgb(item.image, name=item.file).save(scratch / file)
        seed = item.row if seeds is None else seeds[item.row]
        rows.append(Rendered(file, scratch / file, item.prompt, seed, {}))
    return rows


@contextmanager
def _held(output: Path | None, of: dict[str, Any], scratch: Path, *, resume: bool) -> Iterator[Path]:
    """The folder of the scores while nobody else holds it."""
    if output is None:
        yield scratch
        return
    with locks.hold_folder(output, naming.prefix("output")):
        places = {name: of[name] and _relative(of[name], output) for name in ("source", "baseline")}
        _claim(output, {"reward": of["reward"], **places}, resume=resume)
        yield output


def _scored(
    reward: str | Reward, name: str, sets: dict[str, list[Rendered]], folder: Path, batch_size: int
) -> tuple[Reward, dict[str, list[Score]]]:
    """The reward, loaded, and the scores of each set of images."""
    import rewards
    from rewards.device import default_device
    from t2ialign.evaluation.manifest_scores import score_manifest
    from t2ialign.progress import Progress

    device = default_device()
    judge = (rewards.load(reward) if isinstance(reward, str) else reward).to(device)
    with Progress(total=sum(map(len, sets.values())), desc="score", unit="image") as bar:
        score = partial(score_manifest, batch_size=batch_size, device=device, progress=bar.update)
        return judge, {key: score(judge, name, rows, folder / key) for key, rows in sets.items()}


def _write(output: Path, result: Evaluation, of: dict[str, Any]) -> Path | None:
    """Write evaluation.json and the page -> the page, which only images on disk have."""
    from t2ialign.web import evaluation_page
    from t2ialign.web.evaluation_page import Side

    head = {"reward": result.reward, "source": _text(of["source"]), "baseline_source": _text(of["baseline"])}
    results = {
        name: {row: value.to_json() for row, value in column.items()}
        for name, column in result.columns.items()
    }
    atomic.write_json(output / RESULT, {**head, **results, "errors": len(result.errors)})
    if of["source"] is None or (result.baseline_rows is not None and of["baseline"] is None):
        return None
    before = Side(of["baseline"], result.baseline_rows) if result.baseline_rows is not None else None
    side = Side(of["source"], result.rows)
    return evaluation_page.write(output, result.reward, result.columns, side, before)


def _claim(output: Path, of: dict[str, str | None], *, resume: bool) -> None:
    there = [name for name in (RESULT, SCORES, BASELINE_SCORES) if (output / name).exists()]
    if there and not resume:
        raise ValueError(
            f"got {output / there[0]} from an earlier run; expected no results there; keep its scores with "
            f"{naming.resuming()}, or choose another {naming.name('output')}"
        )
    file = output / STARTED
    if there and file.is_file():
        before = atomic.read_json(file)
        for key, value in of.items():
            if before.get(key) is not None and not same(before[key], value):
                raise ValueError(
                    f"got {key} {value} for {output}, which holds scores with {key} {before[key]}; expected "
                    f"the same; choose another {naming.name('output')}"
                )
    atomic.write_json(file, of)


def _relative(source: Path, output: Path) -> str:
    """The manifest as seen from the results, so that both may move together."""
    file = source / manifest.NAME if source.is_dir() else source
    return os.path.relpath(file.resolve(), output.resolve())


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
