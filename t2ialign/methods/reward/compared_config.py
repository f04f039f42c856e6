"""Settings of a run on compared images."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from t2ialign.training.settings import LoopConfig


class ComparisonConfig(LoopConfig):
    """Settings of a run on compared images."""

    FREE: ClassVar[frozenset[str]] = LoopConfig.FREE | {"cache"}

    data: str
    """The preference pairs: a parquet or JSONL file, a folder with the sub-folders chosen/ and rejected/, or
    a dataset on the Hugging Face Hub."""
    split: str = "train"
    """The split to read where data is a dataset on the Hub."""
    streaming: bool = False
    """Read a dataset on the Hub as a stream, without storing it on disk."""
    limit: int | None = Field(default=None, ge=1)
    """The maximum number of pairs to read; none reads all."""
    ties: Literal["soft", "drop"] = "soft"
    """What happens to pairs without a winner: soft trains towards equal scores, drop leaves them out."""
    unreadable: Literal["error", "skip"] = "error"
    """What happens at a row without a prompt, a label or readable images: error stops the run, skip leaves
    the row out and counts it."""
    resolution: int | None = Field(default=None, ge=8)
    """The length of the sides of stored images in pixels; none is the model's default, where it has one."""
    cache: Path | None = None
    """The folder for prepared images; none is output/cache. Runs on the same data can share it."""
    even_prompts: bool = True
    """Weight each pair by 1 / the number of pairs of its prompt, so that every prompt counts the same."""
    holdout: float = Field(default=0.05, ge=0, lt=1)
    """The share of prompts that are held out of training, to measure accuracy and keep the best weights; 0
    holds out none."""
    holdout_limit: int = Field(default=1024, ge=1)
    """The maximum number of held-out pairs that are measured."""
