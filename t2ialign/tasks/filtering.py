"""Preference pairs that three rewards do not contradict, with the report of what was dropped and why."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from t2ialign.io import locks, naming
from t2ialign.scoring.budget import MAX_BATCH_PIXELS, check_max_batch_pixels

if TYPE_CHECKING:
    from rewards import Reward
    from t2ialign.data.consistent_filter import Limits

REPORT, JOURNAL, PAGE = ".json", ".scores.jsonl", ".html"
"""Endings of the report and the page, in place of the output's, and of the journal of scores, behind it."""
USUAL = 2
"""The strategy where neither one nor floors are given."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which pairs are filtered, by what, and how they are read and scored."""

    pairs: str
    judges: Sequence[tuple[str, Reward | None]]
    """The rewards by name, in order; None for those that are loaded when they are needed."""
    output: Path
    strategy: int | None = None
    floors: Sequence[float] | None = None
    ties: Sequence[float] | None = None
    split: str = "train"
    streaming: bool = False
    limit: int | None = None
    unreadable: Literal["error", "skip"] = "error"
    batch_size: int = 64
    max_batch_pixels: int = MAX_BATCH_PIXELS

    @property
    def rewards(self) -> tuple[str, ...]:
        """The names of the rewards, in order."""
        return tuple(name for name, _ in self.judges)


@dataclass(frozen=True)
class Filtered:
    """The result of filtering pairs."""

    output: Path
    """The pairs that were kept."""
    report: Path
    page: Path
    """Examples of what was kept and dropped."""
    figures: dict[str, Any] = field(repr=False)
    """The content of the report: limits, counts, quantiles of the gaps."""

    @property
    def preferences(self) -> dict[str, Any]:
        """The figures of pairs with a winner: "pairs", "kept", "dropped_by", "rewards"."""
        part: dict[str, Any] = self.figures["preferences"]
        return part

    @property
    def ties(self) -> dict[str, Any]:
        """The figures of ties, in the same form."""
        part: dict[str, Any] = self.figures["ties"]
        return part

    @property
    def pairs_kept(self) -> int:
        """How many pairs were kept."""
        return int(self.figures["kept"])

    def check(self) -> None:
        """Raises ValueError if no pair is left."""
        if not self.pairs_kept:
            raise ValueError(
                f"got no pair of {self.figures['pairs']} that all three rewards allow; expected some; lower "
                f"{naming.name('floors')}, raise {naming.name('ties')} (the gaps are in {self.report}) and "
                f"add {naming.resuming()}"
            )


def run(how: Filter, *, resume: bool = False) -> Filtered:
    """Score, filter, write pairs and report. Raises ValueError for bad settings or data."""
    limits = _limits(how)
    with locks.hold_file(how.output, naming.prefix("output")):
        _check(how, resume=resume)
        return _filter(how, limits)


def _filter(how: Filter, limits: Limits) -> Filtered:
    import numpy as np

    from t2ialign.data.consistent_filter import consistent
    from t2ialign.data.pair_writer import check_record, write_pairs
    from t2ialign.data.pairs import read_pairs
    from t2ialign.data.skipped import skipping
    from t2ialign.evaluation import filter_report
    from t2ialign.io import atomic
    from t2ialign.scoring.pairs import score_pairs
    from t2ialign.tasks.scorers import load
    from t2ialign.web import filter_page

    options: dict[str, Any] = {"split": how.split, "streaming": how.streaming, "limit": how.limit}
    read = partial(read_pairs, how.pairs, ties="soft", **options)
    skipped = skipping(how.unreadable, how.pairs)
    scored = score_pairs(
        (check_record(record, how.output) for record in read(skipped=skipped)),
        how.rewards,
        partial(load, dict(how.judges)),
        _beside(how.output)[1],
        batch_size=how.batch_size,
        max_batch_pixels=how.max_batch_pixels,
        skipped=skipped,
    )
    if skipped is not None:
        skipped.tell()
    gaps, preferences = scored.gaps(3), scored.preferences
    whole = np.asarray(np.isfinite(gaps).all(1))
    allowed = np.zeros(len(gaps), np.bool_)
    allowed[whole] = consistent(gaps[whole], preferences[whole], limits)
    columns = [f"gap_{name}" for name in how.rewards]
    examples = filter_page.Examples(how.pairs, how.rewards, gaps, preferences, limits)
    again = scored.again(read(skipped=skipping(how.unreadable, how.pairs)))
    chosen = (
        (record, dict(zip(columns, gaps[number].tolist(), strict=True)))
        for number, record in examples.passing(again)
        if allowed[number]
    )
    write_pairs(how.output, chosen, columns)
    parts = filter_report.summarise(how.rewards, gaps[whole], preferences[whole], limits)
    head = {
        **_head(how, limits),
        "pairs": len(gaps),
        "kept": int(allowed.sum()),
        "unreadable": {
            "rows": skipped.count if skipped is not None else 0,
            "pairs": int((~whole).sum()),
            "pictures": scored.unreadable,
        },
    }
    report, _, page = _beside(how.output)
    atomic.write_json(report, {**head, **parts})
    filter_page.write(page, {**head, **parts}, examples)
    _warn_of_units(how, bool(parts["ties"]["pairs"]))
    return Filtered(how.output, report, page, {**head, **parts})


def _limits(how: Filter) -> Limits:
    """The strategy's, with floors and widths given in their place."""
    from t2ialign.data.consistent_filter import STRATEGIES, Limits

    strategy_name, floors_name, ties_name = map(naming.name, ("strategy", "floors", "ties"))
    if how.strategy and how.floors:
        raise ValueError(
            f"got both {strategy_name} and {floors_name}, which stands in its place; expected one; drop one"
        )
    if how.strategy not in (None, *STRATEGIES):
        raise ValueError(f"got {naming.given('strategy', how.strategy)}; expected 1, 2 or 3; choose one")
    strategy = STRATEGIES[how.strategy or USUAL]
    limits = Limits(
        _three("floors", how.floors or strategy.floors), _three("ties", how.ties or strategy.ties)
    )
    if not all(map(math.isfinite, (*limits.floors, *limits.ties))) or min(limits.ties) < 0:
        raise ValueError(
            f"got {floors_name} {limits.floors} and {ties_name} {limits.ties}; expected finite numbers, and "
            "widths of at least 0; change them"
        )
    return limits


def _three(name: str, values: Sequence[float]) -> tuple[float, float, float]:
    """The same numbers, one for each reward. Raises ValueError for more or fewer."""
    if len(values) != 3:
        raise ValueError(f"got {naming.given(name, list(values))}; expected three numbers, one a reward")
    first, second, third = values
    return first, second, third


def _check(how: Filter, *, resume: bool) -> None:
    from t2ialign.data.pair_writer import check_output
    from t2ialign.tasks.scorers import check_all
    from t2ialign.training.inputs import check_data

    if len(how.rewards) != 3 or len(set(how.rewards)) < 3:
        names = " ".join(how.rewards)
        raise ValueError(f"got {naming.given('rewards', names)}; expected three different ones; change one")
    if how.unreadable not in ("error", "skip"):
        raise ValueError(f"got {naming.given('unreadable', how.unreadable)}; expected error or skip")
    if how.batch_size < 1:
        raise ValueError(f"got {naming.given('batch_size', how.batch_size)}; expected at least 1; raise it")
    check_max_batch_pixels(how.max_batch_pixels)
    check_output(how.output)
    check_all([name for name, reward in how.judges if reward is None], {})
    check_data(how.pairs)
    report, journal, page = _beside(how.output)
    files = (how.output, report, journal, page)
    source = Path(how.pairs).expanduser().resolve()
    for file in files:
        if file.resolve() == source or (source.is_dir() and file.resolve().is_relative_to(source)):
            raise ValueError(
                f"got {naming.given('output', how.output)} in the place of {how.pairs}; choose another"
            )
    there = [file for file in files if file.exists()]
    if there and not resume:
        raise ValueError(
            f"got {there[0]} from an earlier run; expected none; keep its scores with {naming.resuming()}, "
            f"or choose another {naming.name('output')}"
        )
    if there and not journal.exists():
        raise ValueError(
            f"got {there[0]} without {journal.name}; expected both, to go on; choose another "
            f"{naming.name('output')}"
        )


def _beside(output: Path) -> tuple[Path, Path, Path]:
    """The report, the journal and the page of an output."""
    return output.with_suffix(REPORT), output.with_name(output.name + JOURNAL), output.with_suffix(PAGE)


def _head(how: Filter, limits: Limits) -> dict[str, Any]:
    return {
        "source": how.pairs,
        "rewards": how.rewards,
        "strategy": None if how.floors else how.strategy or USUAL,
        "floors": limits.floors,
        "tie_widths": limits.ties,
    }


def _warn_of_units(how: Filter, tied: bool) -> None:
    """Published numbers that are not 0 mean nothing in the units of other rewards."""
    from t2ialign.data.consistent_filter import PUBLISHED, STRATEGIES

    floors = STRATEGIES[how.strategy or USUAL].floors
    others = [
        name
        for name, published, floor in zip(how.rewards, PUBLISHED, floors, strict=True)
        if name != published and ((floor and not how.floors) or (tied and not how.ties))
    ]
    if others:
        log.warning(
            "the limits are in units of %s, and those of %s are others; the gaps in %s say what fits: "
            "give %s and %s, with %s",
            ", ".join(PUBLISHED),
            ", ".join(others),
            _beside(how.output)[0],
            naming.name("floors"),
            naming.name("ties"),
            naming.resuming(),
        )
