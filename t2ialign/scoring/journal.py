"""The journal of a scoring run: rows appended as they come, so that a killed run loses and doubles none."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from t2ialign.scoring.items import Item

SUFFIX = ".journal.jsonl"
EVERY = 2.0
"""Seconds of rows that a kill may cost: so often they are pushed to disk."""

Row = dict[str, Any]


def path_of(output: Path) -> Path:
    """The journal of an output file, beside it."""
    return output.with_name(output.name + SUFFIX)


class Journal:
    """One JSON object a line: first what is scored by what, then rows. Open by one process at a time."""

    def __init__(self, path: Path, of: Mapping[str, object], *, resume: bool) -> None:
        """Open a new journal, or with `resume` go on with the one that is there, if any.

        `of` says what the scores are of; it must be the same again. Raises ValueError for a journal that is
        there without `resume`, of other settings, torn elsewhere than at its end, or open in another process.
        """
        self.path, self.of = path, dict(of)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("ab", buffering=0)
        try:
            self._lock()
            self.done = self._read(resume)
        except BaseException:
            self.file.close()
            raise
        self.size = self.start = path.stat().st_size
        self.kept: dict[str, tuple[int, int]] = {}
        self.held: list[Row] = []
        self.pushed = time.monotonic()

    def todo(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items without a score so far; a row with an error is tried again."""
        for item in items:
            if (key := item.identity) in self.done:
                self.kept[key] = item.shard, item.row
            else:
                yield item

    def add(self, rows: Iterable[Row]) -> None:
        """Take rows of `todo` items; they are on disk `EVERY` seconds later, or after `push`."""
        self.held.extend(rows)
        if time.monotonic() - self.pushed >= EVERY:
            self.push()

    def push(self) -> None:
        """Write what is held and wait for the disk. Raises OSError, with nothing written, if it is full."""
        lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in self.held)
        data = lines.encode("utf-8", "backslashreplace")  # lone surrogates of file names
        left = memoryview(data)
        try:
            while left:
                left = left[self.file.write(left) :]
            os.fsync(self.file.fileno())
        except OSError:
            self.file.truncate(self.size)
            raise
        self.size += len(data)
        self.held, self.pushed = [], time.monotonic()

    def rows(self) -> Iterator[Row]:
        """Every row of the source once, with its present place; those that are gone from it are left out.

        To be read when all of `todo` has been added and pushed.
        """
        waiting = dict(self.kept)
        for offset, row in self._lines():
            if offset >= self.start:
                yield row
            elif row.get("error") is None and (place := waiting.pop(row["id"], None)):
                yield {**row, "shard": place[0], "row": place[1]}

    def close(self) -> None:
        """Push what is held and let others open the journal."""
        self.push()
        self.file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"got {self.path}, which another run is writing; expected one run an output; wait for it, or "
                "choose another --output"
            ) from error

    def _read(self, resume: bool) -> set[str]:
        """Identities with scores; cuts off a line that a kill left torn, writes the head of a new file."""
        if self.path.stat().st_size and not resume:
            raise ValueError(
                f"got {self.path} from an earlier run; expected none; keep its scores with --resume latest, "
                "delete it, or choose another --output"
            )
        done: set[str] = set()
        whole = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                row = self._parse(line, number)
                if number == 1:
                    self._check(row)
                elif row.get("error") is None:
                    done.add(row["id"])
        self.file.truncate(whole)
        if not whole:
            self.file.write(json.dumps({"of": self.of}, ensure_ascii=False).encode() + b"\n")
        return done

    def _lines(self) -> Iterator[tuple[int, Row]]:
        """(offset, row) of all but the head."""
        with self.path.open("rb") as file:
            offset = len(file.readline())
            for number, line in enumerate(file, 2):
                yield offset, self._parse(line, number)
                offset += len(line)

    def _parse(self, line: bytes, number: int) -> Row:
        try:
            row = json.loads(line)
        except ValueError:  # broken UTF-8 too
            row = None
        if not isinstance(row, dict) or not ({"of"} <= row.keys() if number == 1 else {"id"} <= row.keys()):
            shown = line[:60].decode("utf-8", "replace")
            raise ValueError(
                f"got {shown!r} in {self.path} line {number}; expected a row of a journal; delete the file"
            )
        return row

    def _check(self, head: Row) -> None:
        for key, value in self.of.items():
            if head["of"].get(key) != value:
                raise ValueError(
                    f"got {key} {value!r} for {self.path}, which holds scores with {key} "
                    f"{head['of'].get(key)!r}; expected the same; choose another --output"
                )
