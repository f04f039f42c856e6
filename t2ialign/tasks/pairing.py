"""Preference pairs or likes out of sampled, scored or ranked images, and where each label comes from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.data.choosing import Choice, Rule
from t2ialign.io import locks, naming
from t2ialign.tasks.images import Place

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rewards import Reward
    from t2ialign.data.judged import Judged
    from t2ialign.tasks.plan import Rendering

REPORT, PAGE, TABLE, SAMPLES = ".json", ".html", ".scores.jsonl", "_images"
"""Endings of the report and of the page, in place of the output's, of the table of scores and of the folder
of sampled images, behind its name."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A model that draws the images of some prompts."""

    how: Rendering
    prompts: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Which images are compared, who says what of them, and what is written."""

    source: str | Sampling
    output: Path
    tools: Mapping[str, Reward | None] = field(default_factory=dict)
    """Rewards that score the images, by name; None for those that are loaded when they are needed."""
    columns: Sequence[str] = ()
    """Columns of the source that hold scores, in place of the tools."""
    judge: str | None = None
    """The tool or column that orders the images, while the others vouch; none lets all of them vote."""
    every: bool = False
    """Every two images of a prompt are paired, and not the best and the worst alone."""
    min_margin: float = 0.0
    min_agreement: float = 0.0
    ties: float | None = None
    """Margins up to which pairs are written as ties; none leaves ties out."""
    likes: tuple[float, float] | None = None
    """Quantiles of liked and disliked images, to write likes in place of pairs."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    batch_size: int = 64

    @property
    def rule(self) -> Rule:
        """Which pairs of a prompt's images are taken."""
        return Rule(self.every, self.min_margin, self.min_agreement, self.ties)


@dataclass(frozen=True)
class Paired:
    """The result of pairing images."""

    output: Path
    """The file of pairs, or of likes."""
    report: Path
    page: Path
    """Examples of what was taken and of what was left out."""
    figures: dict[str, Any] = field(repr=False)
    """The content of the report."""

    @property
    def count(self) -> int:
        """How many pairs, or likes and dislikes, were written."""
        return int(self.figures["written"])


@dataclass(frozen=True)
class Compared:
    """The images of one prompt with their scores, and the choices among them."""

    images: list[Judged]
    scores: NDArray[np.float64]
    """(n, K) of the tools that vouch"""
    choices: list[tuple[Choice, str | None]]


def run(how: Pairing, *, resume: bool = False) -> Paired:
    """Score, choose, write. Raises ValueError for bad settings or data, and where nothing is left."""
    with locks.hold_file(how.output, naming.prefix("output")):
        _check(how, resume=resume)
        names, images = _judged(how, resume=resume)
        return _write(how, names, images)


def _judged(how: Pairing, *, resume: bool) -> tuple[list[str], list[Judged]]:
    """The names of the scores, and the images with theirs."""
    from t2ialign.data.judged import read_judged

    if how.tools:
        return _scored(how, resume=resume)
    assert isinstance(how.source, str), "sampled images are scored by tools"
    names, images = read_judged(how.source, how.columns)
    return names, list(images)


def _scored(how: Pairing, *, resume: bool) -> tuple[list[str], list[Judged]]:
    from t2ialign.data.judged import Judged
    from t2ialign.tasks import scoring
    from t2ialign.tasks.scorers import Scoring

    tools = Scoring(rewards=how.tools, options=how.options, batch_size=how.batch_size)
    tools.check()
    where = Place(images=_images(how, resume=resume))
    table = beside(how.output, TABLE)
    scores = scoring.run(tools, where, table, resume=table.exists() and resume).to_pylist()
    items = {(item.shard, item.row): item for item in where.open().items()}
    images = []
    for row in scores:
        item = items[row["shard"], row["row"]]
        if item.prompt is None:
            raise ValueError(
                f"{item.file}: got an image without a prompt; expected one for every image, since those of a "
                "prompt are compared; name captions beside the images, or a table of images and prompts"
            )
        values = tuple(math.nan if row[name] is None else row[name] for name in how.tools)
        if item.image is not None:
            images.append(Judged(item.prompt, item.image, values, item.prompt, item.file))
    return list(how.tools), images


def _images(how: Pairing, *, resume: bool) -> str:
    """The place of the images, which a model draws first if that is the source."""
    if isinstance(how.source, str):
        return how.source
    from t2ialign.tasks import rendering

    folder = beside(how.output.with_suffix(""), SAMPLES)
    rendering.run(how.source.how, how.source.prompts, folder, resume=resume and folder.exists())
    return str(folder)


def _write(how: Pairing, names: list[str], images: list[Judged]) -> Paired:
    """Choose, write the output, the report and the page. Raises ValueError where nothing is left."""
    from t2ialign.evaluation import pair_report
    from t2ialign.io import atomic
    from t2ialign.web import pairs_page

    groups = _groups(how, names, images)
    tools = [name for name in names if name != how.judge] or names
    figures = {
        "source": how.source if isinstance(how.source, str) else str(how.source.how.model),
        **{"tools": tools, "judge": how.judge, "kind": "pairs" if how.likes is None else "likes"},
        **{"images": len(images), "prompts": len({one.prompt for one in images})},
        **pair_report.summarise(tools, [group.scores for group in groups], [g.choices for g in groups]),
    }
    if how.likes is None:
        figures["written"] = _write_pairs(how, tools, groups, figures)
    else:
        figures |= _write_likes(how, groups)
    report, page = how.output.with_suffix(REPORT), how.output.with_suffix(PAGE)
    atomic.write_json(report, figures)
    root = Path(how.source).expanduser() if isinstance(how.source, str) else None
    pairs_page.write(page, figures, groups, tools, root if root and root.is_dir() else None)
    return Paired(how.output, report, page, figures)


def _groups(how: Pairing, names: list[str], images: list[Judged]) -> list[Compared]:
    import numpy as np

    from t2ialign.data import choosing

    by_group: dict[str, list[Judged]] = {}
    for image in images:
        by_group.setdefault(image.group, []).append(image)
    several = [group for group in by_group.values() if len(group) > 1]
    if not several:
        raise ValueError(
            f"got {len(images)} images of {len(by_group)} prompts, one of each; expected several images of a "
            "prompt, to compare them; sample more"
        )
    judge = None if how.judge is None else names.index(how.judge)
    vouching = [k for k in range(len(names)) if k != judge] or [0]
    scores = [np.array([image.scores for image in group], dtype=float) for group in several]
    spread = choosing.spreads([some[:, vouching] for some in scores])
    groups = []
    for group, some in zip(several, scores, strict=True):
        order = choosing.panel(some[:, vouching], spread) if judge is None else some[:, judge]
        part = some[:, vouching]
        groups.append(Compared(group, part, list(choosing.pairs(part, order, how.rule))))
    return groups


def _write_pairs(how: Pairing, tools: Sequence[str], groups: list[Compared], figures: dict[str, Any]) -> int:
    from t2ialign.data.pair_writer import write_pairs
    from t2ialign.data.pairs import MARGIN, PairRecord

    columns = [MARGIN, "agreement", *(f"gap_{name}" for name in tools)]

    def rows() -> Iterator[tuple[PairRecord, dict[str, float]]]:
        for group in groups:
            for choice in (choice for choice, why in group.choices if why is None):
                win, lose = group.images[choice.win], group.images[choice.lose]
                preference = 0.5 if choice.tie else 1.0
                record = PairRecord(win.prompt, win.image, lose.image, 1.0, win.name, preference)
                values = (choice.margin, choice.agreement, *choice.gaps)
                yield record, dict(zip(columns, values, strict=True))

    written = sum(why is None for group in groups for _, why in group.choices)
    if not written:
        dropped = ", ".join(f"{count} by {why}" for why, count in figures["dropped"].items())
        raise ValueError(
            f"got no pair out of {figures['images']} images of {figures['prompts']} prompts ({dropped}); "
            f"expected at least one; {_advice(figures['dropped'])}"
        )
    write_pairs(how.output, rows(), columns)
    return written


def _advice(dropped: Mapping[str, int]) -> str:
    reason = Counter(dropped).most_common(1)[0][0] if dropped else "tie"
    if reason == "tie":
        return f"the scores tie everywhere: name another reward, or keep ties with {naming.name('ties')}"
    return f"lower {naming.name('min_margin' if reason == 'margin' else 'min_agreement')}"


def _write_likes(how: Pairing, groups: list[Compared]) -> dict[str, Any]:
    from t2ialign.data.choosing import likes
    from t2ialign.data.likes_writer import write_likes
    from t2ialign.data.rated import RatedRecord

    assert how.likes is not None, "likes are written"
    records = []
    for group in groups:
        told = likes(group.scores, liked=how.likes[0], disliked=how.likes[1])
        records += [
            RatedRecord(image.prompt, image.image, liked, image.name)
            for image, liked in zip(group.images, told, strict=True)
            if liked is not None
        ]
    liked = sum(record.liked for record in records)
    if not liked or liked == len(records):
        raise ValueError(
            f"got {liked} liked and {len(records) - liked} disliked images; expected some of both; name "
            f"another reward, or change {naming.name('quantiles')}"
        )
    write_likes(how.output, records)
    return {"written": len(records), "liked": liked, "disliked": len(records) - liked}


def beside(output: Path, ending: str) -> Path:
    """The file or folder that stands beside the output, called as it is with an ending."""
    return output.with_name(output.name + ending)


def _check(how: Pairing, *, resume: bool) -> None:
    from t2ialign.data.pair_writer import check_output

    check_output(how.output)
    names = list(how.tools) or list(how.columns)
    if how.judge is not None and how.judge not in names:
        raise ValueError(
            f"got {naming.given('judge', how.judge)}; expected one of {', '.join(names)}; name it among them"
        )
    if how.tools and how.columns:
        raise ValueError(
            f"got {naming.name('rewards')} and {naming.name('columns')}; expected rewards that score the "
            "images, or columns that have scores; drop one"
        )
    if not how.tools and not isinstance(how.source, str):
        raise ValueError(
            f"got no {naming.name('rewards')} for sampled images; expected at least one; name it"
        )
    if how.likes is not None and not 0 <= how.likes[1] <= how.likes[0] <= 1:
        raise ValueError(
            f"got {naming.given('quantiles', ' '.join(map(str, how.likes)))}; expected two numbers from 0 to "
            "1, first that of liked images, which is the larger; change them"
        )
    for name, value in (("min_margin", how.min_margin), ("ties", how.ties or 0)):
        if not 0 <= value < math.inf:
            raise ValueError(f"got {naming.given(name, value)}; expected a number from 0; change it")
    if not 0 <= how.min_agreement <= 1:
        raise ValueError(
            f"got {naming.given('min_agreement', how.min_agreement)}; expected a share from 0 to 1"
        )
    there = [file for file in (how.output, how.output.with_suffix(REPORT)) if file.exists()]
    if there and not resume:
        raise ValueError(
            f"got {there[0]} from an earlier run; expected none; keep its scores with {naming.resuming()}, "
            f"or choose another {naming.name('output')}"
        )
