"""The settings that every trainer shares."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field

from t2ialign.config import Config
from t2ialign.models.lora_targets import UNET


class LoopConfig(Config):
    """Settings of the training loop, whatever it trains."""

    FREE: ClassVar[frozenset[str]] = frozenset(
        {
            *("output", "resume", "max_steps", "batch_size", "accumulate"),
            *("checkpoint_every", "checkpoint_limit", "log_every", "trackers", "evaluate_every"),
            *("lr", "max_grad_norm", "precision"),  # what mends a run that came to NaN
        }
    )
    """What a resumed run may change, as long as the global batch stays: the rest makes it another run."""

    output: Path = Path("runs/new")
    """Folder for the result; one in use is an error unless resumed."""
    resume: str | None = None
    """latest continues the newest whole checkpoint of output, if there is any; or the path of one."""
    seed: int = 0
    """Of every random draw."""

    max_steps: int = Field(default=1000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(default=4, ge=1)
    """Rows per process and micro-step."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-steps per optimiser step; the global batch is batch_size x accumulate x processes."""
    lr: float = Field(default=1e-5, gt=0)
    """Peak learning rate."""
    lr_schedule: Literal["constant", "linear", "cosine", "polynomial"] = "constant"
    """How the learning rate falls after the warm-up."""
    lr_warmup: int = Field(default=0, ge=0)
    """Optimiser steps over which the learning rate rises from 0."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit keeps its moments in 8 bits (bitsandbytes, GPU)."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Of AdamW."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Clip the gradient to this global norm; 0 never clips."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of the weights that is saved and evaluated; 0 is none."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What the network computes in; trained weights and losses are always fp32."""

    checkpoint_every: int = Field(default=100, ge=1)
    """Optimiser steps between checkpoints."""
    checkpoint_limit: int = Field(default=2, ge=0)
    """How many checkpoints to keep; 0 keeps all."""
    log_every: int = Field(default=1, ge=1)
    """Optimiser steps between rows for the trackers; metrics.jsonl gets every step."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """tensorboard and wandb; metrics.jsonl is written in any case."""
    evaluate_every: int = Field(default=100, ge=1)
    """Optimiser steps between held-out metrics."""


class TrainConfig(LoopConfig):
    """Settings of every trainer of an image model."""

    FREE: ClassVar[frozenset[str]] = LoopConfig.FREE | {
        *("attention", "gradient_checkpointing", "validate_every", "validation_prompts"),
        *("num_validation_images", "validation_steps", "validation_guidance"),
        # Of the weights; the monitor's own journal says what of these may change.
        *("monitor_prompts", "monitor_rewards", "monitor_images", "monitor_steps", "monitor_guidance"),
        *("stop_on_hack", "keep_best"),
    }

    model: str = "shapes"
    """The model to align: shapes (embedded), a diffusers folder, a single file of weights, or a Hub id."""
    variant: str | None = None
    """Which weight files of a folder or a Hub id to read, where there are several, as fp16."""
    revision: str | None = None
    """Branch, tag or commit of a Hub id."""
    clip_skip: int | None = Field(default=None, ge=0)
    """Last text encoder layers to leave out, as diffusers counts: 1 is what A1111 calls clip skip 2."""
    prediction_type: Literal["epsilon", "v_prediction"] | None = None
    """What the network predicts, in place of what the model's files say."""
    rescale_betas_zero_snr: bool | None = None
    """Whether the last training step is pure noise, in place of what the model's files say."""
    attention: Literal["sdpa", "xformers"] = "sdpa"
    """Attention kernels; xformers is the extra of that name."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    lora_rank: int = Field(default=16, ge=0)
    """Rank of the LoRA; 0 trains all weights and pays for a frozen copy of them as the reference."""
    lora_alpha: float | None = Field(default=None, gt=0)
    """Strength of the LoRA; none means its rank."""
    lora_targets: tuple[str, ...] = UNET
    """Names of the layers that get a LoRA."""

    validation_prompts: tuple[str, ...] = ()
    """Prompts, or files of prompts, to render while training."""
    validate_every: int = Field(default=100, ge=1)
    """Optimiser steps between renders of the validation prompts."""
    num_validation_images: int = Field(default=4, ge=1)
    """Images per validation prompt, the same seeds each time."""
    validation_steps: int = Field(default=20, ge=1)
    """Sampling steps of the validation images."""
    validation_guidance: float = Field(default=5.0, ge=1)
    """Guidance of the validation images."""

    monitor_prompts: str | None = None
    """A file of prompts never trained on, or one prompt, to measure every `evaluate_every` steps."""
    monitor_rewards: tuple[str, ...] = ()
    """Held-out rewards of their images; never the one that is trained."""
    monitor_images: int = Field(default=4, ge=2)
    """Images per monitor prompt, the same seeds each time."""
    monitor_steps: int = Field(default=20, ge=1)
    """Sampling steps of the monitor's images."""
    monitor_guidance: float = Field(default=5.0, ge=1)
    """Guidance of the monitor's images."""
    stop_on_hack: bool = False
    """End the run where a held-out reward falls significantly while the trained one still rises."""
    keep_best: str | None = None
    """One of monitor_rewards: the weights that were best by it are kept in output/best."""

    def for_family(self, family: str) -> Self:
        """The settings for a family of models, "sd1", "sd2" or "sdxl": some defaults depend on it."""
        return self
