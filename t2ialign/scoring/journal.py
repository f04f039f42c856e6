"""The journal of a scoring run: rows appended as they come, so that a killed run loses and doubles none."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rewards.renamed import same, updated
from t2ialign.io import naming
from t2ialign.scoring.items import Item

SUFFIX = ".journal.jsonl"
EVERY = 2.0
"""Seconds between two pushes to disk, and so the rows that a kill may cost."""
CARRIAGE = frozenset({"timeout", "tries", "wait", "workers", "key_env", "device_map", "batch"})
"""Options about how a model is reached, not about what it answers: a resumed run may change them."""

Row = dict[str, Any]


def path_of(output: Path) -> Path:
    """The journal of an output file, beside it."""
    return output.with_name(output.name + SUFFIX)


def answering(options: Mapping[str, Any]) -> Row:
    """The options of a model that its answers depend on, for the head of a journal."""
    return {key: options[key] for key in sorted(options.keys() - CARRIAGE)}


def is_scored(row: Row) -> bool:
    """Whether a row has no error."""
    return row.get("error") is None


def has_scores(row: Row) -> bool:
    """Whether a row holds numbers by the names of rewards, as those of score do."""
    scores = row.get("scores")
    return isinstance(scores, dict) and all(type(value) in (int, float) for value in scores.values())


class Journal:
    """One JSON object a line: first what is scored by what, then rows. Its verb holds the output's lock.

    The first line comes with the first rows, so that settings which are refused leave nothing behind.
    """

    def __init__(
        self,
        path: Path,
        of: Mapping[str, object],
        *,
        resume: bool,
        done: Callable[[Row], bool] = is_scored,
        whole: Callable[[Row], bool] = has_scores,
    ) -> None:
        """Open a new journal, or with `resume` go on with the one that is there, if any.

        `of` says what the scores are of; it must be the same again. Rows that are not `done` are tried again.
        Raises ValueError for a journal that is there without `resume`, of other settings, torn elsewhere than
        at its end, or with a row that is not `whole`.
        """
        self.path, self.of, self.is_done, self.is_whole = path, dict(of), done, whole
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("ab", buffering=0)
        try:
            self.done = self._read(resume)
        except BaseException:
            self.file.close()
            raise
        self.size = self.start = path.stat().st_size
        self.done_before: dict[str, tuple[int, int]] = {}
        self.held: list[Row] = []
        self.pushed = time.monotonic()

    def todo(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items that are not done so far."""
        for item in items:
            if (key := item.identity) in self.done:
                self.done_before[key] = item.shard, item.row
            else:
                yield item

    def add(self, rows: Iterable[Row]) -> None:
        """Take rows of `todo` items; they are on disk `EVERY` seconds later, or after `push`."""
        self.held.extend(rows)
        if time.monotonic() - self.pushed >= EVERY:
            self.push()

    def push(self) -> None:
        """Write the held rows and wait for the disk. Raises OSError, with nothing written, if it is full."""
        rows = [{"of": self.of}, *self.held] if not self.size else self.held
        lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
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
        waiting = dict(self.done_before)
        for offset, row in self._lines():
            if offset >= self.start:
                yield row
            elif self.is_done(row) and (place := waiting.pop(row["id"], None)):
                yield {**row, "shard": place[0], "row": place[1]}

    def close(self) -> None:
        """Push the rows that are held; an empty journal is removed."""
        if self.held:
            self.push()
        self.file.close()
        if not self.size:
            self.path.unlink(missing_ok=True)

    def _read(self, resume: bool) -> set[str]:
        """Identities that are done; cuts off an incomplete line that a kill left."""
        if self.path.stat().st_size and not resume:
            raise ValueError(
                f"got {self.path} from an earlier run; expected none; keep its scores with "
                f"{naming.resuming()}, delete it, or choose another {naming.name('output')}"
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
                elif self.is_done(row):
                    done.add(row["id"])
        self.file.truncate(whole)
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
        except (ValueError, RecursionError):  # broken UTF-8 too
            row = None
        if number == 1:
            good = isinstance(row, dict) and isinstance(row.get("of"), dict)
        else:
            good = isinstance(row, dict) and _has_place(row) and self.is_whole(row)
        if not good:
            shown = line[:60].decode("utf-8", "replace")
            raise ValueError(
                f"got {shown!r} in {self.path} line {number}; expected a row of a journal; delete the file"
            )
        return {**row, "scores": self._named(row["scores"])} if isinstance(row.get("scores"), dict) else row

    def _named(self, scores: dict[str, Any]) -> dict[str, Any]:
        """Scores by the names of this run's rewards: an earlier release may have written others."""
        stated = self.of.get("rewards")
        rewards = stated if isinstance(stated, Mapping) else {}
        return {updated(name) if updated(name) in rewards else name: value for name, value in scores.items()}

    def _check(self, head: Row) -> None:
        for key, value in self.of.items():
            if not same(head["of"].get(key), value):
                raise ValueError(
                    f"got {key} {value!r} for {self.path}, which holds scores with {key} "
                    f"{head['of'].get(key)!r}; expected the same; choose another {naming.name('output')}"
                )


def _has_place(row: Row) -> bool:
    """Whether a row says of which image it is, and what is wrong with it."""
    texts = all(isinstance(row.get(key), str) for key in ("id", "file"))
    numbers = all(type(row.get(key)) is int for key in ("shard", "row"))
    return texts and numbers and all(isinstance(row.get(key, 0), str | None) for key in ("prompt", "error"))
