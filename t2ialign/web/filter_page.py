"""The page of `t2ialign filter`: how many pairs each reward dropped, and examples, as one file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2ialign.data.consistent_filter import TIE, Limits, allowed
from t2ialign.data.images import ImageSource, open_rgb
from t2ialign.data.pairs import PairRecord
from t2ialign.io import atomic
from t2ialign.io.inside import lies_within
from t2ialign.web.embedded import Shown, shown
from t2ialign.web.pages import render

EXAMPLES = 6
"""Pairs that are shown of those kept, and of those that each set of rewards dropped."""
STAYS = "kept"


@dataclass(frozen=True)
class Example:
    """A pair, the winner first, with the gap of each reward."""

    prompt: str
    images: list[Shown]
    gaps: dict[str, float]
    tie: bool


class Examples:
    """The first pairs of each group, caught while they pass by on their way into the output.

    Gaps (N, 3), preferences (N,) in [1/2, 1]; pairs whose gaps are not finite belong to no group. `source`
    is where the pairs come from: of a folder no image outside of it is shown. Raises ValueError like
    `consistent_filter.allowed`.
    """

    def __init__(
        self,
        source: str,
        names: Sequence[str],
        gaps: NDArray[np.float64],
        preferences: NDArray[np.float64],
        limits: Limits,
    ) -> None:
        whole = np.asarray(np.isfinite(gaps).all(axis=1))
        allows: NDArray[np.bool_] = np.zeros(gaps.shape, np.bool_)
        allows[whole] = allowed(gaps[whole], preferences[whole], limits)
        folder = Path(source).expanduser()
        self._root = folder if folder.is_dir() else None
        self._names, self._gaps, self._preferences = names, gaps, preferences
        self._allows, self._whole = allows, whole
        self.groups: dict[str, list[Example]] = {STAYS: []}

    def passing(self, records: Iterable[tuple[int, PairRecord]]) -> Iterator[tuple[int, PairRecord]]:
        """The same numbered pairs; those that are the first of their group are noted."""
        for number, record in records:
            if self._whole[number]:
                group = self.groups.setdefault(self._group(number), [])
                if len(group) < EXAMPLES and (example := self._example(number, record)) is not None:
                    group.append(example)
            yield number, record

    def _group(self, number: int) -> str:
        """The rewards that forbid a pair, as `consistent_filter.dropped_by` calls them."""
        pairs = zip(self._names, self._allows[number], strict=True)
        return " + ".join(name for name, allows in pairs if not allows) or STAYS

    def _example(self, number: int, record: PairRecord) -> Example | None:
        sides = (("preferred", record.win), ("other", record.lose))
        images = [self._image(image, f"{record.prompt}, the {name} image") for name, image in sides]
        gaps = dict(zip(self._names, self._gaps[number].tolist(), strict=True))
        whole = [image for image in images if image is not None]
        tie = bool(self._preferences[number] == TIE)
        return Example(record.prompt, whole, gaps, tie) if len(whole) == len(images) else None

    def _image(self, image: ImageSource, alt: str) -> Shown | None:
        """None for one that lies outside the folder of the pairs, or is gone."""
        if self._root is not None and isinstance(image, Path) and not lies_within(self._root, image):
            return None
        with suppress(ValueError):
            return shown(open_rgb(image), alt)
        return None


def write(file: Path, report: Mapping[str, Any], examples: Examples) -> None:
    """Write the page; `report` is the content of the report file beside the pairs."""
    atomic.write_text(file, page(report, examples.groups))


def page(report: Mapping[str, Any], groups: Mapping[str, Sequence[Example]]) -> str:
    """The page as HTML text: counts, which rewards dropped how many pairs, and examples by group."""
    sorts = {name: report[name] for name in ("preferences", "ties") if report[name]["pairs"]}
    order = [STAYS, *report["preferences"]["dropped_by"]]
    return render(
        "filter.html",
        title=f"Pairs of {report['source']}",
        lead=(
            f"{report['kept']} of {report['pairs']} pairs are kept: those whose label none of "
            f"{', '.join(report['rewards'])} contradicts."
        ),
        report=report,
        sorts=sorts,
        dropped={name: [part["dropped_by"][name] for part in sorts.values()] for name in order[1:]},
        groups={name: groups[name] for name in order if groups.get(name)},
        kept_group=STAYS,
    )
