"""Settings of train dense."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from t2ialign.training.settings import TrainConfig


class Config(TrainConfig):
    """Settings of train dense."""

    FREE: ClassVar[frozenset[str]] = TrainConfig.FREE | {"rollout_batch", "heldout_prompts"}

    prompts: str
    """A file of prompts (txt, jsonl, json, csv, tsv, parquet), or one prompt typed in place."""
    heldout_prompts: str | None = None
    """Prompts never trained on, as above; their images' mean reward is measured at fixed seeds."""
    reward: str = "shapes-oracle"
    """What scores the final images: any name of rewards.load, differentiable or not."""

    num_steps: int = Field(default=50, ge=2, le=1000)
    """T: DDIM steps of a path, eta 1."""
    guidance: float = Field(default=7.5, ge=1)
    """Classifier-free guidance, the same in sampling and in training."""
    collect_every: int = Field(default=4000, ge=1)
    """Updates between collections of new paths from the current policy."""
    collect_prompts: int = Field(default=2000, ge=1)
    """Groups of paths per collection, a prompt each, in random order, again from the start if too few."""
    rollouts: int = Field(default=12, ge=2)
    """M: paths sampled per group."""
    keep: int = Field(default=5, ge=2)
    """N: paths stored per group, evenly spaced in reward, best and worst included."""
    rollout_batch: int = Field(default=48, ge=1)
    """Images sampled at once, at least one group."""
    store: Literal["fp16", "fp32"] = "fp16"
    """Precision of stored states; rewards are taken before rounding."""

    compare: int = Field(default=2, ge=2)
    """Paths of a group compared in one row (2 is Bradley-Terry)."""
    timesteps: int = Field(default=1, ge=1)
    """n: steps drawn per update, with replacement, the same ones for all rows."""
    gamma: float = Field(default=0.9, gt=0, le=1)
    """Temporal discount of the draw of steps; 1 treats all steps alike."""
    temperature: float = Field(default=12.5, gt=0)
    """C: scale of the mean clipped log-ratio, for latents of 16,384 numbers: x D / 16384 for D numbers."""
    clip: float = Field(default=5e-4, gt=0)
    """c: a step with a mean log-ratio beyond it gets no gradient; x 16384 / D for latents of D numbers."""
    ties: Literal["shuffle", "skip"] = "shuffle"
    """Rows whose rewards are all equal: ordered at random as in the paper, or given no weight."""

    max_steps: int = Field(default=40_000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(default=32, ge=1)
    """Groups per process and micro-step; each is compare x timesteps forwards, twice that with guidance."""
    lr: float = Field(default=2e-5, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=1.5e-3, ge=0)
    """Of AdamW."""
    max_grad_norm: float = Field(default=0.05, ge=0)
    """Clip the gradient to this global norm; 0 never clips."""
    lora_rank: int = Field(default=32, ge=0)
    """Rank of the LoRA; 0 trains all weights and pays for a frozen copy of them as the reference."""
