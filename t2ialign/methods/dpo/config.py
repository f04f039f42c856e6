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

    EXAMPLES: ClassVar[str] = r"""
  Align Stable Diffusion 1.5 with a folder of a few hundred pairs:
    t2ialign train dpo -c dpo_sd15_small data=my_pairs/ output=runs/mine
  Train on a dataset on the Hub without storing it:
    t2ialign train dpo -c dpo_sd15 data=yuvalkirstain/pickapic_v2 streaming=true limit=50000
  Train without a reference model (MaPO), and continue an interrupted run:
    t2ialign train dpo -c dpo_sdxl data=my_pairs/ loss=mapo output=runs/mapo resume=latest
"""

    FREE: ClassVar[frozenset[str]] = TrainConfig.FREE | {"cache", "encode_batch"}

    data: str
    """The preference pairs: a parquet or JSONL file, a folder with the sub-folders chosen/ and rejected/, or
    a dataset on the Hugging Face Hub."""
    split: str = "train"
    """The split to read where data is a dataset on the Hub."""
    streaming: bool = False
    """Read a dataset on the Hub as a stream, without storing it on disk."""
    limit: int | None = Field(default=None, ge=1)
    """The maximum number of pairs to read; none reads all."""
    ties: Literal["drop", "half"] = "drop"
    """What happens to pairs without a winner: drop leaves them out, half trains on both orders with half the
    weight each."""
    unreadable: Literal["error", "skip"] = "error"
    """What happens at a row without a prompt, a label or readable images: error stops the run, skip leaves
    the row out and counts it."""
    resolution: int | None = Field(default=None, ge=8)
    """The length of the shorter side of a training image in pixels; none is the model's default."""
    buckets: bool = False
    """Keep the aspect ratio of the images, in buckets of equal size, instead of cropping the square in the
    centre."""
    flip: bool = False
    """Mirror pairs at random, both images of a pair alike."""
    caption_dropout_rate: float = Field(default=0.0, ge=0, lt=1)
    """The share of pairs that are trained with the empty prompt instead of their own, drawn anew at every
    step, so that the model without a prompt, from which guidance pushes away, is trained along. The released
    Diffusion-DPO has 0.2."""
    noise_draws: int = Field(default=0, ge=0)
    """The number of draws of timestep, noise and latents that each pair has, one an epoch in turn. What the
    reference errs on a draw is remembered, so that its forward is saved from the second use on. 0 draws anew
    at every step."""
    cache: Path | None = None
    """The folder for encoded images and prompts; none is output/cache. Runs on the same data can share it."""
    encode_batch: int = Field(default=8, ge=1)
    """The number of pairs that are encoded at a time. Lower it if the image encoder runs out of memory; that
    of SDXL computes in fp32."""
    holdout: float = Field(default=0.05, ge=0, lt=1)
    """The share of prompts that are held out of training, to measure implicit accuracy on them; 0 holds out
    none."""
    holdout_limit: int = Field(default=256, ge=1)
    """The maximum number of held-out pairs that are measured."""

    loss: Loss = "dpo"
    """The preference loss, by a name that a file of t2ialign/objectives declares. mapo needs no reference
    model, and so half the compute."""
    beta: float = Field(default=5000.0, gt=0)
    """The strength of the tie to the reference model (dpo, ipo and hinge), on the scale of Diffusion-DPO's
    launch script."""
    mapo_beta: float = Field(default=0.1, gt=0)
    """The weight of MaPO's margin beside its supervised term."""
    safeguard: float | None = Field(default=0.9, ge=0, le=1)
    """The mu of Diffusion-SDPO: the share of the winner's descent, per pair, that the loser's gradient may
    not undo. The paper has 0.9 for SD 1.5 and 0.6 for SDXL; 0 or none switches it off, which is the released
    Diffusion-DPO."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """The temporal discount: below 1 the early, noisy denoising steps count more, and 1 is plain
    Diffusion-DPO."""
    discount: Literal["sample", "weight"] = "sample"
    """How gamma acts: sample draws the timesteps by it, weight draws them uniformly and multiplies the
    argument of the sigmoid."""
    num_inference_steps: int = Field(default=50, ge=1)
    """The number T of denoising steps of a sampling path, of which gamma counts how many are over."""

    batch_size: int = Field(default=4, ge=1)
    """The number of pairs per process and micro-step."""
    accumulate: int = Field(default=32, ge=1)
    """The number of micro-steps whose gradients are averaged into one optimiser step. Each pair sees a single
    timestep, so small batches are noisy."""
    lr: float = Field(default=2e-5, gt=0)
    """The peak learning rate."""

    @property
    def sides(self) -> tuple[int, ...]:
        """The side of the square crops, where one is set; buckets have sides that fit."""
        return () if self.resolution is None or self.buckets else (self.resolution,)
