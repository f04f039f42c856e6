"""Settings of train reward."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2ialign.methods.reward.compared_config import ComparisonConfig
from t2ialign.models.lora_targets import SCORER


class Config(ComparisonConfig):
    """Settings of train reward."""

    reward: str
    """The scorer to train: a name of rewards.load, or the output folder of an earlier run."""
    weights: str | None = None
    """What it starts from, as its own `weights` option takes it; none is the published checkpoint."""
    train: Literal["full", "lora", "head"] = "full"
    """All weights, a LoRA that is merged in the result, or the weights of the head."""
    layers: tuple[str, ...] = ()
    """Patterns of the weights that train=head trains, such as tower.model.*_projection.*; none is its own."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of the LoRA."""
    lora_alpha: float | None = Field(default=None, gt=0)
    """Strength of the LoRA; none means its rank."""
    lora_targets: tuple[str, ...] = SCORER
    """Last names of the linear layers that get a LoRA, where the scorer has them."""
    scale: float = Field(default=1.0, gt=0)
    """P(first is better) = sigmoid(scale x difference): 1 for PickScore, about 100 for cosines."""

    max_steps: int = Field(default=4000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(default=16, ge=1)
    """Pairs per process and micro-step."""
    accumulate: int = Field(default=8, ge=1)
    """Micro-steps per optimiser step; the global batch is batch_size x accumulate x processes."""
    lr: float = Field(default=3e-6, gt=0)
    """Peak learning rate."""
    lr_warmup: int = Field(default=500, ge=0)
    """Optimiser steps over which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.3, ge=0)
    """Of AdamW."""
