"""Settings of every trainer of a rewriter."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from t2ialign.config import Config
from t2ialign.rewriting.load import TOY


class LanguageConfig(Config):
    """Settings of every trainer of a rewriter."""

    language_model: ClassVar[bool] = True
    """Whether `model` is a rewriter, and not an image model."""
    FREE: ClassVar[frozenset[str]] = frozenset(
        {"output", "resume", "max_steps", "checkpoint_every", "trackers", "gradient_checkpointing"}
    )
    """Settings that a resumed run may change."""

    output: Path = Path("runs/new")
    """The folder that the results are written to. A folder that is already in use is an error, unless the run
    is resumed."""
    resume: Literal["latest"] | None = None
    """Set this to latest to continue from the newest complete checkpoint in output, if there is one."""
    seed: int = 0
    """The seed of every random draw of the run."""
    model: str = TOY
    """The rewriter to start from: toy (that of the toy model), a transformers folder or a Hub id of a
    causal language model."""
    lora_rank: int = Field(default=16, ge=0)
    """The rank of the LoRA on all linear layers. With 0 all weights are trained, and GRPO holds a frozen copy
    of them in memory."""
    preset: str = "trained"
    """How the prompt is put to the model: trained (the prompt alone), general, or another preset of t2ialign
    rewrite."""
    max_steps: int = Field(default=1000, ge=1)
    """The number of optimiser steps."""
    batch_size: int = Field(default=8, ge=1)
    """The number of texts per process and micro-step."""
    accumulate: int = Field(default=1, ge=1)
    """The number of micro-steps whose gradients are averaged into one optimiser step."""
    lr: float = Field(default=1e-5, gt=0)
    """The peak learning rate."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate changes after the warm-up."""
    lr_warmup: int = Field(default=0, ge=0)
    """The number of optimiser steps over which the learning rate rises from 0 to its peak."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """The number format in which the model computes."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass, which takes less memory and about a third more time."""
    checkpoint_every: int = Field(default=100, ge=1)
    """The number of optimiser steps between two checkpoints, of which the two newest stay on disk."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """The trackers that the metrics are sent to: tensorboard, wandb or both. The file metrics.jsonl is always
    written."""
