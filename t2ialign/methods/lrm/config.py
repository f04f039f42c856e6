"""Settings of train lrm."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2ialign.methods.reward.compared_config import ComparisonConfig


class Config(ComparisonConfig):
    """Settings of train lrm."""

    model: str
    """The diffusion model whose blocks become the reward: "shapes", a folder, a single file or a Hub id."""
    text_projection: str | None = None
    """A CLIP whose text projection is the start (openai/clip-vit-large-patch14 for Stable Diffusion 1)."""
    vfe: float = Field(default=7.5, ge=1)
    """Guidance on the middle features; 1 is none, and half the cost."""
    num_steps: int = Field(default=20, ge=1, le=1000)
    """Sampling steps whose timesteps are drawn, evenly."""
    heldout_timesteps: tuple[int, ...] = (1, 251, 501, 751)
    """Where accuracy is measured; the first one decides which weights are best."""

    max_steps: int = Field(default=4000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(default=16, ge=1)
    """Pairs per process and micro-step."""
    accumulate: int = Field(default=8, ge=1)
    """Micro-steps per optimiser step; the global batch is batch_size x accumulate x processes."""
    lr: float = Field(default=1e-5, gt=0)
    """Peak learning rate."""
    lr_warmup: int = Field(default=500, ge=0)
    """Optimiser steps over which the learning rate rises from 0."""
    lr_schedule: Literal["constant", "linear", "cosine", "polynomial"] = "linear"
    """After the warm-up."""
    weight_decay: float = Field(default=0.3, ge=0)
    """Of AdamW."""
