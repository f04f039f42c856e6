"""Unusable rows: the fault of each, and one line on all that were left out."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Literal

from t2ialign.io.messages import one_line

EXAMPLE = 120
"""Characters of an example that are shown at most."""
NO_IMAGE = "with an image that cannot be read"

log = logging.getLogger(__name__)


class Fault(ValueError):
    """The fault of one row; `kind` describes it for several rows, as in "3 rows without a prompt"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Skipped:
    """The rows of a source that were left out, counted by kind, with the first example of each kind."""

    def __init__(self, source: str) -> None:
        self.source, self.rows = source, 0
        self._places = set[str]()
        self._counts, self._first = Counter[str](), dict[str, str]()

    @property
    def count(self) -> int:
        """The number of rows that were left out."""
        return len(self._places)

    def add(self, error: ValueError, place: str) -> None:
        """Count the row at `place`, as `where` of its table names it, once."""
        if place in self._places:
            return
        self._places.add(place)
        kind = error.kind if isinstance(error, Fault) else NO_IMAGE
        self._counts[kind] += 1
        wrong, _, _ = str(error).removeprefix(f"{self.source} ").partition("; expected")
        self._first.setdefault(kind, one_line(wrong, EXAMPLE))

    def summary(self) -> str:
        """The number of rows that were left out, in all and of each kind, with the first of each."""
        of = f" of {self.rows}" if self.rows else ""
        kinds = "; ".join(f"{n} {kind} (first: {self._first[kind]})" for kind, n in self._counts.items())
        return f"{self.count}{of} rows left out: {kinds}"

    def tell(self) -> None:
        """One warning on all of them, if there are any."""
        if self.count:
            most = "; that is more than half: check the data" if 2 * self.count > self.rows > 0 else ""
            log.warning("%s", one_line(f"{self.source}: {self.summary()}{most}"))


def skipping(unreadable: Literal["error", "skip"], source: str) -> Skipped | None:
    """The counter of unusable rows of `source`, or None if the first one stops the run."""
    return Skipped(source) if unreadable == "skip" else None
