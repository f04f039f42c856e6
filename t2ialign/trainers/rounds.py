"""What online step-level training learns from, a round at a time: judged siblings, on disk and in memory.

A round is a pure function of the weights at its start, so a run that is resumed reads the round it was in and
draws the next one. Each process writes the part it sampled; all read all parts, in the order of their
prompts, so that several processes hold the same round as one would.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from t2ialign.evaluation import manifest

INDEX = "rounds.jsonl"

Rows = dict[str, Tensor]
"""Tensors of one length, row i of each of one judged step."""


@dataclass(frozen=True)
class Round:
    """A line of the index."""

    number: int
    start: int
    """The update it was sampled before."""
    updates: int
    """How many it is good for; 0 if too few rows were valid."""

    @property
    def end(self) -> int:
        """The update that needs the next one."""
        return self.start + self.updates


class Rounds:
    """The rounds of a run in a folder; the newest one's files stay until the next is whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def index(self) -> list[Round]:
        """All that were finished, in order."""
        return [Round(**row) for row in manifest.journal(self.folder / INDEX)]

    def at(self, step: int) -> Round | None:
        """The one that the update number `step` learns from, if it is sampled already."""
        return next((r for r in reversed(self.index()) if r.start <= step < r.end), None)

    def next_number(self, step: int) -> int:
        """Of the round to sample before the update number `step`: those of a future cut off do not count."""
        return max((r.number for r in self.index() if r.end <= step), default=-1) + 1

    def write_part(self, number: int, process: int, rows: Rows) -> None:
        """What one process sampled, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.folder / f".part-{process:03d}"
        save_file({name: value.contiguous() for name, value in rows.items()}, scratch)
        scratch.replace(self._part(number, process))

    def read(self, number: int, processes: int) -> Rows:
        """All parts as one, sorted by "order". Raises ValueError if one is missing."""
        parts = []
        for process in range(processes):
            file = self._part(number, process)
            if not file.is_file():
                raise ValueError(
                    f"got no {file}, which the run was learning from; expected it beside the checkpoints; "
                    "restore it, or start anew in another output"
                )
            parts.append(load_file(file))
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        by_order = joined["order"].argsort(stable=True)
        return {name: value[by_order] for name, value in joined.items()}

    def finish(self, found: Round, keep: int) -> None:
        """Add it to the index, without those of a future cut off, and drop files of rounds before `keep`."""
        rows = [r for r in self.index() if r.number < found.number] + [found]
        manifest.rewrite(self.folder / INDEX, [vars(row) for row in rows])
        for file in self.folder.glob("round-*.safetensors"):
            if int(file.name.split("-")[1]) < keep:
                file.unlink(missing_ok=True)

    def _part(self, number: int, process: int) -> Path:
        return self.folder / f"round-{number:06d}-{process:03d}.safetensors"


def describe(index: list[Round]) -> str:
    """For a message: what there is."""
    return json.dumps([vars(row) for row in index[-3:]])
