"""Settings of train evaluator."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from t2ialign import config


class Config(config.Config):
    """Settings of train evaluator."""

    data: str
    """Rows of image, prompt and points ({kind, description, match}): a file, a folder of parquet, the Hub."""
    split: str = "train"
    """Of a Hub dataset."""
    reward: str
    """The two-tower scorer whose frozen embeddings the head sees, such as clipscore-h or shapes-clip."""
    weights: str | None = None
    """Of that scorer; none is its published checkpoint."""
    output: Path = Path("runs/new")
    """Folder for the result; one in use is an error unless resumed."""
    resume: Literal["latest"] | None = None
    """latest keeps what is embedded in the cache and fits anew."""
    cache: Path | None = None
    """Folder for embeddings; none is output/cache. Fits to the same data can share it."""
    seed: int = 0
    """Of the held-out prompts, the first weights and the order of the pairs."""
    holdout: float = Field(default=0.2, gt=0, lt=1)
    """Share of the prompts that the head is measured on and never fitted to."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """Share of the other prompts whose loss says when to stop."""
    pictures: int = Field(default=64, ge=1)
    """Pictures embedded at a time."""
    epochs: int = Field(default=60, ge=1)
    """At most so many passes over the key points."""
    patience: int = Field(default=10, ge=1)
    """Epochs without a better validation loss after which the fit stops."""
    batch_size: int = Field(default=128, ge=1)
    """Key points per optimiser step."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate of AdamW."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Of AdamW."""
    width: int = Field(default=256, ge=1)
    """Units of the head's two hidden layers."""
