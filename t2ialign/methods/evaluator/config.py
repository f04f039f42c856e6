"""Settings of train evaluator."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from t2ialign import config


class Config(config.Config):
    """Settings of train evaluator."""

    EXAMPLES: ClassVar[str] = r"""
  Fit a judge of key points to annotated images:
    t2ialign train evaluator data=annotated.jsonl reward=clipscore-h output=runs/judge
  Embed fewer images at a time, and continue an interrupted run:
    t2ialign train evaluator data=annotated.jsonl reward=clipscore-h output=runs/judge images=16 \
      resume=latest
  Fit a wider head to the embeddings of the toy model's CLIP:
    t2ialign train evaluator data=annotated.jsonl reward=toy-clip width=512 output=runs/toy_judge
"""

    data: str
    """The training rows, each with image, prompt and points ({kind, description, match}): a file, a folder of
    parquet files, or a dataset on the Hub."""
    split: str = "train"
    """The split to read where data is a dataset on the Hub."""
    reward: str
    """The two-tower scorer whose frozen embeddings are the input of the head, such as clipscore-h or
    toy-clip."""
    weights: str | None = None
    """The weights of that scorer; none is its published checkpoint."""
    output: Path = Path("runs/new")
    """The folder that the results are written to. A folder that is already in use is an error, unless the run
    is resumed."""
    resume: Literal["latest"] | None = None
    """Set this to latest to reuse the embeddings in the cache of an interrupted run and fit the head anew."""
    cache: Path | None = None
    """The folder for embeddings; none is output/cache. Runs on the same data can share it."""
    seed: int = 0
    """The seed of the split into held-out prompts, of the initial weights and of the order of the rows."""
    holdout: float = Field(default=0.2, gt=0, lt=1)
    """The share of prompts on which the head is measured; it is never fitted to them."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """The share of the other prompts whose loss decides when to stop."""
    images: int = Field(default=64, ge=1)
    """The number of images that are embedded at a time."""
    epochs: int = Field(default=60, ge=1)
    """The maximum number of passes over the key points."""
    patience: int = Field(default=10, ge=1)
    """The number of epochs without a lower validation loss after which the fit stops."""
    batch_size: int = Field(default=128, ge=1)
    """The number of key points per optimiser step."""
    lr: float = Field(default=1e-3, gt=0)
    """The learning rate of the AdamW optimiser."""
    weight_decay: float = Field(default=0.1, ge=0)
    """The weight decay of the AdamW optimiser."""
    width: int = Field(default=256, ge=1)
    """The number of units in each of the head's two hidden layers."""
