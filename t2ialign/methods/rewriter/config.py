"""Settings of every trainer of a rewriter."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from t2ialign.config import Config
from t2ialign.rewriting.load import SHAPES


class LanguageConfig(Config):
    """Settings of every trainer of a rewriter."""

    language_model: ClassVar[bool] = True
    """Whether `model` is one, and not an image model."""
    FREE: ClassVar[frozenset[str]] = frozenset(
        {"output", "resume", "max_steps", "checkpoint_every", "trackers", "gradient_checkpointing"}
    )
    """What a resumed run may change."""

    output: Path = Path("runs/new")
    """Folder for the result; one in use is an error unless resumed."""
    resume: Literal["latest"] | None = None
    """latest continues the newest whole checkpoint of output, if there is one."""
    seed: int = 0
    """Of every random draw."""
    model: str = SHAPES
    """The rewriter to start from: shapes (embedded), a transformers folder or a Hub id of a causal LM."""
    lora_rank: int = Field(default=16, ge=0)
    """Rank of the LoRA on all linear layers; 0 trains all weights, of which GRPO keeps a frozen copy."""
    preset: str = "trained"
    """How it is asked: trained (the prompt alone), general, or another of rewriting.instructions."""
    max_steps: int = Field(default=1000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(default=8, ge=1)
    """Texts per process and micro-step."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-steps per optimiser step."""
    lr: float = Field(default=1e-5, gt=0)
    """Peak learning rate."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up."""
    lr_warmup: int = Field(default=0, ge=0)
    """Optimiser steps over which the learning rate rises from 0."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What the model computes in."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Optimiser steps between checkpoints, of which the two newest are kept."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """tensorboard and wandb; metrics.jsonl is written in any case."""
