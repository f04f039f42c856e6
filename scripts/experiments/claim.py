"""The interface of a claim: it is measured for each seed, resumable, and judged over all seeds."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2ialign.io import atomic, jsonl
from t2ialign.progress import Progress

SEEDS = (0, 1, 2)
"""The seeds of every claim that is judged over several."""


@dataclass(frozen=True)
class Row:
    """One judged statement; `ci95` is the interval of the number that decides, None where there is none."""

    claim: str
    measured: dict[str, Any]
    ci95: tuple[float, float] | None
    holds: bool


@dataclass(frozen=True)
class Figure:
    """One chart of the page: `body` is finished HTML, `note` says how to read it."""

    title: str
    body: str
    note: str = ""


class Claim(ABC):
    """One thing to prove. Sizes are attributes, so that tests can make it small."""

    text: str
    """The claim as a sentence."""
    paper: str | None = None
    """Whose claim it is, as a reference; None for our own."""
    seeds: tuple[int, ...] = SEEDS
    """One is enough where `single_seed` is True: for a row of an ablation, and for a short run."""
    single_seed: bool = False

    @abstractmethod
    def measure(self, folder: Path, seed: int) -> None:
        """Measure one seed, leaving files in `folder`; called again after a kill, it goes on from them."""

    def shared(self, folder: Path, seed: int) -> Path | None:
        """The folder of what runs share and the first of them makes, if this run uses one."""
        return None

    @abstractmethod
    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """The verdict over all seeds, from what `measure` left: one row or more."""

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Charts for the page."""
        return []


class MeasuredOnce(Claim):
    """A claim whose measurement ends in one JSON file, after which nothing is left to do."""

    result: str
    """The name of that file."""

    def measure(self, folder: Path, seed: int) -> None:
        """Measure and write the file, unless it is there."""
        if not (folder / self.result).exists():
            folder.mkdir(parents=True, exist_ok=True)
            atomic.write_json(folder / self.result, self.measurement(folder, seed))

    @abstractmethod
    def measurement(self, folder: Path, seed: int) -> dict[str, Any]:
        """The content of the file; parts that are done already may lie in `folder`, which exists."""

    def results(self, folders: Sequence[Path]) -> list[dict[str, Any]]:
        """The contents of the files of all seeds."""
        return [json.loads((folder / self.result).read_text(encoding="utf-8")) for folder in folders]


def resumable(
    file: Path,
    items: Sequence[Mapping[str, Any]],
    measure: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    desc: str,
) -> None:
    """Append a line to a JSONL file for each item that has none: its keys, and what `measure` gives."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = jsonl.read(file)
    jsonl.rewrite(file, lines)  # without a torn last line
    missing = [item for item in items if not any(item.items() <= line.items() for line in lines)]
    for item in Progress(missing, desc=desc, unit="measurement"):
        jsonl.append(file, [{**item, **measure(item)}])
