"""The judged states that online step-level training learns from, one round at a time, on disk.

A round is a pure function of the weights at its start, so a run that is resumed reads the round it was in and
draws the next one. Each process writes the part it sampled; all read all parts, in the order of their
places, so that several processes hold the same round as one would.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from rewards import tensor_files
from t2ialign.io import jsonl
from t2ialign.io.hashes import digest, fault, note, noted

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
    """The number of updates that its rows suffice for; 0 if too few rows were valid."""
    parts: int
    """Files it is in: processes that sampled."""

    @property
    def end(self) -> int:
        """The update that needs the next one."""
        return self.start + self.updates


class Rounds:
    """The rounds of a run in a folder: those that a checkpoint can be resumed in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def index(self) -> list[Round]:
        """All that were finished, in order."""
        file = self.folder / INDEX
        rows = jsonl.read(file)
        names = {field.name for field in fields(Round)}
        if any(row.keys() != names or any(type(v) is not int for v in row.values()) for row in rows):
            raise ValueError(
                f"got {file}, which is damaged; expected rounds of whole numbers; restore it, or start anew "
                "in another output"
            )
        return [Round(**row) for row in rows]

    def at(self, step: int) -> Round | None:
        """The one that the update number `step` learns from, if it is sampled already."""
        return next((r for r in self.index() if r.start <= step < r.end), None)

    def next_number(self, step: int) -> int:
        """The number of the round to sample before the update number `step`."""
        return max((r.number for r in self.index() if r.end <= step), default=-1) + 1

    def write_part(self, number: int, process: int, rows: Rows) -> None:
        """Write the rows that one process sampled, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.folder / f".part-{process:03d}"
        tensor_files.write(rows, scratch)
        part = self._part(number, process)
        note(self.folder, part.name, digest(scratch))
        scratch.replace(part)

    def read(self, number: int, parts: int | None = None) -> Rows:
        """All parts as one, sorted by "order"; in number as indexed. Raises ValueError if one is damaged."""
        if parts is None:
            parts = next(r.parts for r in self.index() if r.number == number)
        rows, known = [], noted(self.folder) or {}
        for process in range(parts):
            file = self._part(number, process)
            if wrong := fault(file, known.get(file.name)):
                raise ValueError(
                    f"got {self.folder}, in which {wrong}; expected what the run was learning from; "
                    "restore it, or start anew in another output"
                )
            rows.append(load_file(file))
        joined = {name: torch.cat([part[name] for part in rows]) for name in rows[0]}
        by_order = joined["order"].argsort(stable=True)
        return {name: value[by_order] for name, value in joined.items()}

    def finish(self, sampled: Round, oldest: int) -> None:
        """Add it to the index; drop the files of rounds that ended by the step of the oldest checkpoint."""
        rows = [r for r in self.index() if r.number < sampled.number] + [sampled]
        jsonl.rewrite(self.folder / INDEX, [vars(row) for row in rows])
        ended = {row.number for row in rows if row.end <= oldest and row is not sampled}
        for file in self.folder.glob("round-*.safetensors"):
            if int(file.name.split("-")[1]) in ended:
                file.unlink()

    def cut(self, step: int) -> None:
        """Forget rounds of later updates than `step`: another learning rate may lead elsewhere."""
        if rows := self.index():
            jsonl.rewrite(self.folder / INDEX, [vars(row) for row in rows if row.start <= step])

    def _part(self, number: int, process: int) -> Path:
        return self.folder / f"round-{number:06d}-{process:03d}.safetensors"
