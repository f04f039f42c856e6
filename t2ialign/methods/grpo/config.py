"""Settings of train grpo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from t2ialign.methods.grpo.presets import FAST, FOR_DDPM, FOR_FLUX, PRESETS
from t2ialign.training.settings import PresetConfig


class Config(PresetConfig):
    """Settings of train grpo."""

    EXAMPLES: ClassVar[str] = r"""
  Align the toy model with its oracle, on a laptop:
    t2ialign train grpo -c grpo_toy output=runs/toy
  Align Stable Diffusion 1.5 as DDPO does, with guidance in sampling and in training:
    t2ialign train grpo preset=ddpo prompts=prompts.txt reward=aesthetic model=my_model.safetensors
  Climb two rewards on Stable Diffusion 3.5 from clean images alone:
    t2ialign train grpo preset=nft prompts=prompts.txt reward=pickscore,clipscore \
      model=stabilityai/stable-diffusion-3.5-medium resolution=512
"""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    FREE: ClassVar[frozenset[str]] = PresetConfig.FREE | {
        *("rollout_batch", "heldout_prompts", "reward_timeout", "reward_retries"),
    }

    preset: Literal["ddpo", "flow-grpo", "fast", "nft", "awm"] = "fast"
    """The published recipe whose values become the defaults of the settings that you leave out. Models that
    predict noise have other values of guidance_scale and kernel; methods/grpo/presets.py lists them."""
    prompts: str
    """A file of prompts (txt, jsonl, json, csv, tsv or parquet), or one prompt."""
    heldout_prompts: str | None = None
    """A file of prompts, or one prompt, that training never sees. The mean reward of their images is measured
    at fixed seeds."""
    reward: str = "toy-oracle"
    """The reward that scores the images: any name of rewards.load, differentiable or not, or several names
    separated by commas."""
    reward_options: dict[str, Any] = Field(default={})
    """The options of the reward, such as reward_options.weights=scorer.safetensors; of several rewards, the
    options of each under its name."""
    reward_weights: tuple[float, ...] = ()
    """The weights of several rewards, in their order; without any they are all 1."""
    combine: Literal["gdpo", "advantages", "scores", "log_sigmoid"] = "gdpo"
    """How several rewards become one advantage. gdpo: each is standardised within its group, and their
    weighted sum once more over the round. advantages: that sum as it is. scores: the weighted sum of the
    scores is standardised. log_sigmoid: a reward counts less once an image is ahead of its group by it."""
    spread: Literal["group", "global", "prompt"] = FAST["spread"]
    """The standard deviation by which a score is divided once the mean of its group is taken off: group, the
    group's; global, that of the whole round; prompt, mean and deviation of the latest 32 scores of the same
    prompt."""
    reward_timeout: float = Field(default=600.0, gt=0)
    """The number of seconds that the reward may take for the images of one rollout_batch."""
    reward_retries: int = Field(default=1, ge=0)
    """The number of times that a reward which fails is called again for the same images before the run
    stops."""

    groups: int = Field(default=FAST["groups"], ge=1)
    """The number of groups of a round, over all processes. Each has one prompt; prompts are taken in random
    order, from the start again where there are too few."""
    group_size: int = Field(default=FAST["group_size"], ge=2)
    """The number of images of a group, which are compared with each other."""
    updates: int = Field(default=FAST["updates"], ge=1)
    """The number of optimiser steps that learn from a round; each takes an equal part of its images."""
    rollout_batch: int = Field(default=16, ge=1)
    """The number of images that are sampled, and scored, at a time."""
    num_inference_steps: int = Field(default=FAST["num_inference_steps"], ge=2)
    """The number T of denoising steps per image."""
    guidance_scale: float = Field(default=FAST["guidance_scale"], ge=1)
    """The scale of classifier-free guidance, the same in sampling and in training; 1 is off."""
    resolution: int | None = Field(default=None, ge=8)
    """The side in pixels of the images that are trained on; none is the model's own size, at which held-out
    images are always measured."""
    shared_noise: bool = FAST["shared_noise"]
    """Start all images of a group from the same noise."""
    window: int = Field(default=FAST["window"], ge=0)
    """The number of denoising steps that add noise and are trained, in a row; their start is drawn for each
    round from the first half of the steps. The other steps add no noise. 0 takes every step that has
    noise."""
    train_timesteps: int = Field(default=FAST["train_timesteps"], ge=1)
    """The number of noise levels at which nft and awm train on each image, one in each equal part of the
    sampling steps that timestep_fraction leaves."""
    timestep_fraction: float = Field(default=FAST["timestep_fraction"], gt=0, le=1)
    """The share of the sampling steps, from the noisiest on, at which nft and awm train."""

    loss: Literal["ratio", "nft", "awm"] = FAST["loss"]
    """The loss. ratio: the clipped policy gradient on denoising steps as they were sampled. nft and awm: on
    clean images that are noised anew, by a contrast of two predictions and by weighted matching."""
    clip: float | None = Field(default=FAST["clip"], gt=0)
    """The limit of probability ratios, 1 - clip to 1 + clip, beyond which a row has no gradient; none is no
    limit. The log-probabilities are means over the latent."""
    advantage_clip: float = Field(default=5.0, gt=0)
    """The limit of the size of an advantage."""
    kl_weight: float = Field(default=FAST["kl_weight"], ge=0)
    """The weight of the distance to the reference model in the loss; with 0 the reference is never run."""
    kl_space: Literal["x", "v"] = FAST["kl_space"]
    """What that distance is measured on. x: the means of a denoising step, by its variance, which needs noise
    in the step. v: what the network predicts."""
    ema_kl_weight: float = Field(default=FAST["ema_kl_weight"], ge=0)
    """The weight of the distance of what the network predicts to what its moving average does, which needs
    ema."""
    nft_beta: float = Field(default=1.0, gt=0)
    """The size of the step from the sampling policy's prediction to the two that nft contrasts."""

    lora_rank: int = Field(default=FAST["lora_rank"], ge=0)
    """The rank of the LoRA. With 0 all weights are trained, and a frozen copy of them is held in memory as
    the reference."""
    lora_alpha: float | None = Field(default=FAST["lora_alpha"], gt=0)
    """The strength of the LoRA (alpha); none sets it to the rank."""
    batch_size: int = Field(default=8, ge=1)
    """The number of rows per process and micro-step: an image at one noise level each. How many micro-steps
    are accumulated follows from the size of a round."""
    accumulate: int = Field(default=1, ge=1)
    """The number of micro-steps of an update, which is worked out and cannot be set."""
    lr: float = Field(default=FAST["lr"], gt=0)
    """The peak learning rate."""
    weight_decay: float = Field(default=FAST["weight_decay"], ge=0)
    """The weight decay of the AdamW optimiser."""
    ema: float = Field(default=FAST["ema"], ge=0, lt=1)
    """The decay of an exponential moving average of the weights, which is then what is saved and evaluated; 0
    switches it off."""

    def for_family(self, family: str) -> Self:
        """A copy with the preset's values for a family of models in place of its defaults."""
        recipe = FOR_FLUX if family == "flux" else {}
        if family in ("sd1", "sd2", "sdxl"):
            recipe = FOR_DDPM[self.preset]
        return self.with_defaults(recipe)

    @property
    def sides(self) -> tuple[int, ...]:
        """The side of the images that are trained on, if it is set."""
        return () if self.resolution is None else (self.resolution,)

    @property
    def trained_steps(self) -> int:
        """The sampling steps at which nft and awm train: never all of them."""
        return min(int(self.num_inference_steps * self.timestep_fraction), self.num_inference_steps - 1)

    @property
    def images(self) -> int:
        """The images of a round."""
        return self.groups * self.group_size

    @property
    def reward_names(self) -> tuple[str, ...]:
        """The rewards, in their order."""
        return tuple(name.strip() for name in self.reward.split(","))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.loss == "ratio" and not 0 <= self.window <= self.num_inference_steps // 2:
            raise ValueError(
                f"got window={self.window} with num_inference_steps={self.num_inference_steps}; expected at "
                f"most {self.num_inference_steps // 2}, half of the steps; lower it"
            )
        if self.loss != "ratio" and self.kl_space == "x" and self.kl_weight:
            raise ValueError(
                f"got kl_space=x with loss={self.loss}, which samples without noise; expected v; set "
                "kl_space=v"
            )
        if self.loss != "ratio" and self.train_timesteps > self.trained_steps:
            raise ValueError(
                f"got train_timesteps={self.train_timesteps} with num_inference_steps="
                f"{self.num_inference_steps} and timestep_fraction={self.timestep_fraction:g}; expected at "
                f"most {self.trained_steps}, the steps that are trained; lower it"
            )
        if self.ema_kl_weight and not self.ema:
            raise ValueError(
                f"got ema_kl_weight={self.ema_kl_weight:g} with ema=0; expected a moving average; set ema"
            )
        if self.images % self.updates:
            raise ValueError(
                f"got updates={self.updates} for {self.groups} groups of {self.group_size} images; expected "
                "a number that divides them; change one"
            )
        if self.reward_weights and len(self.reward_weights) != len(self.reward_names):
            raise ValueError(
                f"got {len(self.reward_weights)} reward_weights for {len(self.reward_names)} rewards; "
                "expected one each; match them"
            )
        return self
