"""Settings of a run on compared images."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from t2ialign.training.settings import LoopConfig


class ComparisonConfig(LoopConfig):
    """Settings of a run on compared pictures."""

    FREE: ClassVar[frozenset[str]] = LoopConfig.FREE | {"cache"}

    data: str
    """Preference pairs: a parquet or JSONL file, a folder with chosen/ and rejected/, or a Hub dataset."""
    split: str = "train"
    """Of a Hub dataset."""
    streaming: bool = False
    """Read a Hub dataset without storing it."""
    limit: int | None = Field(default=None, ge=1)
    """Read at most so many pairs."""
    ties: Literal["soft", "drop"] = "soft"
    """Pairs without a winner teach equal scores, or are left out."""
    unreadable: Literal["error", "skip"] = "error"
    """A row without prompt, label or readable images stops the run, or is left out and counted (skip)."""
    resolution: int | None = Field(default=None, ge=8)
    """Pixels of the sides of stored pictures; none is the model's own, where it has one."""
    cache: Path | None = None
    """Folder for prepared pictures; none is output/cache. Runs on the same data can share it."""
    even_prompts: bool = True
    """Weigh a pair by 1 / the pairs of its prompt, so that every prompt has one voice."""
    holdout: float = Field(default=0.05, ge=0, lt=1)
    """Share of the prompts kept out of training, to measure accuracy and keep the best; 0 keeps out none."""
    holdout_limit: int = Field(default=1024, ge=1)
    """At most so many held-out pairs are measured."""
