"""Settings of train dpo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from t2ialign import objectives
from t2ialign.training.settings import TrainConfig

if TYPE_CHECKING:
    Loss = str
else:
    Loss = Literal[objectives.names()]


class Config(TrainConfig):
    """Settings of train dpo."""

    FREE: ClassVar[frozenset[str]] = TrainConfig.FREE | {"cache", "encode_batch"}

    data: str
    """Preference pairs: a parquet or JSONL file, a folder with chosen/ and rejected/, or a Hub dataset."""
    split: str = "train"
    """Of a Hub dataset."""
    streaming: bool = False
    """Read a Hub dataset without storing it."""
    limit: int | None = Field(default=None, ge=1)
    """Read at most so many pairs."""
    ties: Literal["drop", "half"] = "drop"
    """Pairs without a winner are left out, or kept in both orders with half the weight."""
    unreadable: Literal["error", "skip"] = "error"
    """A row without prompt, label or readable images stops the run, or is left out and counted (skip)."""
    resolution: int | None = Field(default=None, ge=8)
    """Pixels of the shorter side; none is the model's own."""
    buckets: bool = False
    """Keep aspect ratios, in buckets of equal size, instead of cropping the centre square."""
    flip: bool = False
    """Mirror pairs at random, both images alike."""
    cache: Path | None = None
    """Folder for encoded images and prompts; none is output/cache. Runs on the same data can share it."""
    encode_batch: int = Field(default=8, ge=1)
    """Pairs encoded at once; lower it if the image encoder runs out of memory (SDXL computes it in fp32)."""
    holdout: float = Field(default=0.05, ge=0, lt=1)
    """Share of the prompts kept out of training, to measure implicit accuracy; 0 keeps out none."""
    holdout_limit: int = Field(default=256, ge=1)
    """At most so many held-out pairs are measured."""

    loss: Loss = "dpo"
    """A name that a file of t2ialign/objectives declares; mapo needs no reference and half the compute."""
    beta: float = Field(default=5000.0, gt=0)
    """Strength of the tie to the reference (dpo, ipo, hinge), on the scale of Diffusion-DPO's launcher."""
    mapo_beta: float = Field(default=0.1, gt=0)
    """Weight of MaPO's margin beside its supervised term."""
    safeguard: float | None = Field(default=0.9, ge=0, le=1)
    """mu of Diffusion-SDPO: the share of the winner's descent that the loser's gradient must leave alone, per
    pair (0.9 for SD1.5, 0.6 for SDXL); 0 or none switches it off, which is the released Diffusion-DPO."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """Temporal discount: early, noisy steps count more below 1; 1 is plain Diffusion-DPO."""
    discount: Literal["sample", "weight"] = "sample"
    """How gamma acts: on the draw of timesteps, or as a weight inside the sigmoid on uniform ones."""
    num_steps: int = Field(default=50, ge=1, le=1000)
    """Sampling steps that gamma counts."""

    batch_size: int = Field(default=4, ge=1)
    """Pairs per process and micro-step."""
    accumulate: int = Field(default=32, ge=1)
    """Micro-steps per optimiser step: a pair sees one timestep a step, so small batches are noisy."""
    lr: float = Field(default=2e-5, gt=0)
    """Peak learning rate."""
