"""Settings of train dense."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from t2ialign.training.settings import PathConfig


class Config(PathConfig):
    """Settings of train dense."""

    EXAMPLES: ClassVar[str] = r"""
  Align the toy model with its oracle, on a laptop:
    t2ialign train dense -c dense_toy output=runs/toy
  Follow the published recipe for Stable Diffusion 1.5:
    t2ialign train dense -c dense_sd15 prompts=prompts.txt
  Train with another reward and shorter paths:
    t2ialign train dense prompts=prompts.txt reward=imagereward model=my_model.safetensors \
      num_inference_steps=25
"""

    FREE: ClassVar[frozenset[str]] = PathConfig.FREE | {"rollout_batch", "heldout_prompts"}

    prompts: str
    """A file of prompts (txt, jsonl, json, csv, tsv or parquet), or one prompt."""
    heldout_prompts: str | None = None
    """A file of prompts, or one prompt, that training never sees. The mean reward of their images is measured
    at fixed seeds."""
    reward: str = "toy-oracle"
    """The reward that scores the final images: any name of rewards.load, differentiable or not."""
    reward_options: dict[str, Any] = Field(default={})
    """The options of that reward, such as reward_options.weights=scorer.safetensors."""

    num_inference_steps: int = Field(default=50, ge=2)
    """The number T of denoising steps per image."""
    guidance_scale: float = Field(default=7.5, ge=1)
    """The scale of classifier-free guidance, the same in sampling and in training; 1 is off."""
    collect_every: int = Field(default=4000, ge=1)
    """The number of optimiser steps between two collections of new denoising paths from the current
    policy."""
    collect_prompts: int = Field(default=2000, ge=1)
    """The number of groups of paths per collection. Each group has one prompt; prompts are taken in random
    order, from the start again where there are too few."""
    rollouts: int = Field(default=12, ge=2)
    """The number M of paths that are sampled per group."""
    keep: int = Field(default=5, ge=2)
    """The number N of paths that are stored per group, evenly spaced in reward, the best and the worst
    included."""
    rollout_batch: int = Field(default=48, ge=1)
    """The number of images that are sampled at a time, which is rounded up to one group."""
    store: Literal["fp16", "fp32"] = "fp16"
    """The number format of stored latents. Rewards are computed before they are rounded."""

    compare: int = Field(default=2, ge=2)
    """The number of paths of a group that are compared in one row; 2 is the Bradley-Terry model."""
    timesteps: int = Field(default=1, ge=1)
    """The number n of denoising steps that are drawn per update, with replacement and the same ones for all
    rows."""
    gamma: float = Field(default=0.9, gt=0, le=1)
    """The temporal discount with which denoising steps are drawn; 1 draws all steps alike."""
    temperature: float = Field(default=12.5, gt=0)
    """The scale C of the mean clipped log-ratio, for latents of 16,384 numbers. For D numbers it is
    multiplied by D / 16384."""
    clip: float = Field(default=5e-4, gt=0)
    """The limit c of the mean log-ratio of a step, beyond which the step has no gradient. For latents of D
    numbers it is multiplied by 16384 / D."""
    ties: Literal["shuffle", "skip"] = "shuffle"
    """What happens to rows whose rewards are all equal: shuffle orders them at random as in the paper, skip
    gives them no weight."""

    max_steps: int = Field(default=40_000, ge=1)
    """The number of optimiser steps."""
    batch_size: int = Field(default=32, ge=1)
    """The number of groups per process and micro-step. Each costs compare x timesteps forward passes, twice
    that with guidance."""
    lr: float = Field(default=2e-5, gt=0)
    """The peak learning rate."""
    weight_decay: float = Field(default=1.5e-3, ge=0)
    """The weight decay of the AdamW optimiser."""
    max_grad_norm: float = Field(default=0.05, ge=0)
    """The gradient is clipped to this global norm; 0 switches clipping off."""
    lora_rank: int = Field(default=32, ge=0)
    """The rank of the LoRA. With 0 all weights are trained, and a frozen copy of them is held in memory as
    the reference."""
