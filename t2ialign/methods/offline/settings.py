"""Settings of every method that learns from images on disk."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from t2ialign.training.settings import TrainConfig


class OfflineConfig(TrainConfig):
    """Settings of a trainer whose images and prompts are encoded once, into a cache."""

    FREE: ClassVar[frozenset[str]] = TrainConfig.FREE | {"cache", "encode_batch"}
    READ: ClassVar[tuple[str, ...]] = ("data", "split", "limit")
    """Settings that say which rows are read: another value makes another cache."""

    data: str
    """The training data: a file, a folder, or a dataset on the Hugging Face Hub."""
    split: str = "train"
    """The split to read where data is a dataset on the Hub."""
    streaming: bool = False
    """Read a dataset on the Hub as a stream, without storing it on disk."""
    limit: int | None = Field(default=None, ge=1)
    """The maximum number of rows to read; none reads all."""
    unreadable: Literal["error", "skip"] = "error"
    """What happens at a row without a prompt, a label or readable images: error stops the run, skip leaves
    the row out and counts it."""
    resolution: int | None = Field(default=None, ge=8)
    """The length of the shorter side of a training image in pixels; none is the model's default."""
    buckets: bool = False
    """Keep the aspect ratio of the images, in buckets of equal size, instead of cropping the square in the
    centre."""
    flip: bool = False
    """Mirror images at random, both images of a pair alike."""
    caption_dropout_rate: float = Field(default=0.0, ge=0, lt=1)
    """The share of rows that are trained with the empty prompt instead of their own, drawn anew at every
    step, so that the model without a prompt, from which guidance pushes away, is trained along. The released
    Diffusion-DPO has 0.2."""
    cache: Path | None = None
    """The folder for encoded images and prompts; none is output/cache. Runs on the same data can share it."""
    encode_batch: int = Field(default=8, ge=1)
    """The number of rows that are encoded at a time. Lower it if the image encoder runs out of memory; that
    of SDXL computes in fp32."""
    holdout: float = Field(default=0.05, ge=0, lt=1)
    """The share of prompts that are held out of training, to measure on them; 0 holds out none."""
    holdout_limit: int = Field(default=256, ge=1)
    """The maximum number of held-out rows that are measured."""

    @property
    def sides(self) -> tuple[int, ...]:
        """The side of the square crops, where one is set; buckets have sides that fit."""
        return () if self.resolution is None or self.buckets else (self.resolution,)
