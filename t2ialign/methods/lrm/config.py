"""Settings of train lrm."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from t2ialign.methods.reward.compared_config import ComparisonConfig


class Config(ComparisonConfig):
    """Settings of train lrm."""

    EXAMPLES: ClassVar[str] = r"""
  Train a latent reward from Stable Diffusion 1.5 on filtered pairs:
    t2ialign train lrm data=filtered.jsonl model=stable-diffusion-v1-5/stable-diffusion-v1-5 \
      text_projection=openai/clip-vit-large-patch14 output=runs/lrm
  Follow the recipe for Stable Diffusion XL:
    t2ialign train lrm -c lrm_sdxl data=filtered.parquet
  Train one for the toy model, for a few steps:
    t2ialign train lrm model=toy data=pairs.jsonl max_steps=100 output=runs/toy_lrm
"""

    model: str
    """The diffusion model whose blocks become the latent reward model: toy (the toy model), a
    diffusers folder, a single file or a Hub id."""
    text_projection: str | None = None
    """The CLIP model whose text projection initialises that of the reward, such as
    openai/clip-vit-large-patch14 for Stable Diffusion 1."""
    vfe: float = Field(default=7.5, ge=1)
    """The scale of guidance on the visual features of the middle block (visual feature enhancement); 1 is off
    and costs half."""
    num_inference_steps: int = Field(default=20, ge=1)
    """The number of sampling timesteps, evenly spaced, from which the training timesteps are drawn."""
    heldout_timesteps: tuple[float, ...] = (1, 251, 501, 751)
    """The times at which accuracy is measured, 0 to 999 for Stable Diffusion and 1000 sigma for a flow model.
    The accuracy at the first one decides which weights are best."""

    max_steps: int = Field(default=4000, ge=1)
    """The number of optimiser steps."""
    batch_size: int = Field(default=16, ge=1)
    """The number of pairs per process and micro-step."""
    accumulate: int = Field(default=8, ge=1)
    """The number of micro-steps whose gradients are averaged into one optimiser step. The global batch size
    is batch_size x accumulate x number of processes."""
    lr: float = Field(default=1e-5, gt=0)
    """The peak learning rate."""
    lr_warmup: int = Field(default=500, ge=0)
    """The number of optimiser steps over which the learning rate rises from 0 to its peak."""
    lr_schedule: Literal["constant", "linear", "cosine", "polynomial"] = "linear"
    """How the learning rate changes after the warm-up."""
    weight_decay: float = Field(default=0.3, ge=0)
    """The weight decay of the AdamW optimiser."""

    @property
    def sides(self) -> tuple[int, ...]:
        """The side of the square crops, where one is set."""
        return () if self.resolution is None else (self.resolution,)
