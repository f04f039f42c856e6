"""Stages of a measurement whose wall time counts: each runs once, and its seconds are kept beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from t2ialign.io import atomic


class Stages:
    """Stage -> seconds, in one file; a stage that is there is not run again."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.seconds: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}

    def run(self, name: str, work: Callable[[], object]) -> float:
        """Do it, unless it is done -> its seconds; of one that was cut off only those of the last attempt."""
        if name not in self.seconds:
            began = time.monotonic()
            work()
            self.seconds[name] = time.monotonic() - began
            self.file.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_json(self.file, self.seconds)
        return self.seconds[name]

    def until(self, prefix: str) -> list[float]:
        """Seconds from the first to the end of each stage called prefix-1, prefix-2 ... in order."""
        each, total = list[float](), 0.0
        while f"{prefix}-{len(each) + 1}" in self.seconds:
            total += self.seconds[f"{prefix}-{len(each) + 1}"]
            each.append(total)
        return each
