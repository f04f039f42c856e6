"""Settings of train reward."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from t2ialign.methods.reward.compared_config import ComparisonConfig
from t2ialign.models.lora_targets import SCORER


class Config(ComparisonConfig):
    """Settings of train reward."""

    EXAMPLES: ClassVar[str] = r"""
  Fine-tune PickScore on your own pairs:
    t2ialign train reward reward=pickscore data=my_pairs.parquet output=runs/scorer
  Train a LoRA of a CLIP scorer, whose scores are cosine similarities:
    t2ialign train reward reward=clipscore data=my_pairs/ train=lora scale=100 output=runs/scorer
  Train a scorer of your own module:
    t2ialign train reward reward=my_package.sharpness data=my_pairs.parquet resolution=512 \
      output=runs/scorer
"""

    reward: str
    """The scorer to train: a name of rewards.load, or the output folder of an earlier run."""
    weights: str | None = None
    """The weights to start from, as the scorer's weights option takes them; none is the published
    checkpoint."""
    reward_options: dict[str, Any] = Field(default={})
    """Other options of that scorer, such as reward_options.rubric=rubric.txt of hpsv3."""
    train: Literal["full", "lora", "head"] = "full"
    """The weights to train: full is all of them, lora is a LoRA that is merged into the result, head is the
    weights of the head."""
    layers: tuple[str, ...] = ()
    """Patterns of the names of the weights that train=head trains, such as tower.model.*_projection.*; an
    empty list is the scorer's default."""
    lora_rank: int = Field(default=16, ge=1)
    """The rank of the LoRA."""
    lora_alpha: float | None = Field(default=None, gt=0)
    """The strength of the LoRA (alpha); none sets it to the rank."""
    lora_targets: tuple[str, ...] = SCORER
    """The last part of the names of the linear layers that get a LoRA, where the scorer has them."""
    scale: float = Field(default=1.0, gt=0)
    """The scale of score differences: P(the first image is better) = sigmoid(scale x difference). It is 1 for
    PickScore and about 100 for cosine similarities."""

    max_steps: int = Field(default=4000, ge=1)
    """The number of optimiser steps."""
    batch_size: int = Field(default=16, ge=1)
    """The number of pairs per process and micro-step."""
    accumulate: int = Field(default=8, ge=1)
    """The number of micro-steps whose gradients are averaged into one optimiser step. The global batch size
    is batch_size x accumulate x number of processes."""
    lr: float = Field(default=3e-6, gt=0)
    """The peak learning rate."""
    lr_warmup: int = Field(default=500, ge=0)
    """The number of optimiser steps over which the learning rate rises from 0 to its peak."""
    weight_decay: float = Field(default=0.3, ge=0)
    """The weight decay of the AdamW optimiser."""
