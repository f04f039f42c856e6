"""Settings of train backprop."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from t2ialign.methods.backprop.presets import PRESETS
from t2ialign.training.settings import TrainConfig


class Config(TrainConfig):
    """Settings of train backprop."""

    FREE: ClassVar[frozenset[str]] = TrainConfig.FREE | {"heldout_prompts", "checkpoint_steps"}

    preset: Literal[
        "alignprop",
        "alignprop-uniform",
        "alignprop-normal",
        "alignprop-k",
        "draft",
        "draft-k",
        "draft-lv",
        "refl",
        "drtune",
    ] = "draft-k"
    """A published recipe: it sets the defaults of what you leave out (methods/backprop/presets.py)."""

    prompts: str
    """A file of prompts (txt, jsonl, json, csv, tsv, parquet), or one prompt typed in place."""
    heldout_prompts: str | None = None
    """Prompts never trained on, as above; their images' mean reward is measured at fixed seeds."""
    reward: str = "shapes-clip"
    """What is maximised: any name of rewards.load whose scores have gradients."""
    reward_options: dict[str, Any] = Field(default={})
    """Keywords of that reward, such as reward_options.weights=scorer.safetensors."""
    reward_precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 runs the reward under autocast."""

    height: int | None = Field(default=None, ge=1)
    """Pixels of the training images; none is the model's own."""
    width: int | None = Field(default=None, ge=1)
    """As height."""
    num_steps: int = Field(default=50, ge=1, le=1000)
    """T: DDIM steps of a path."""
    guidance: float = Field(default=7.5, ge=1)
    """Classifier-free guidance of the training paths; gradients pass both of its predictions."""
    eta: float = Field(default=0.0, ge=0, le=1)
    """Noise per step: 0 is DDIM, 1 is DDPM."""

    record: Literal["all", "last", "mask", "uniform", "normal", "spaced"] = "last"
    """Which steps record gradients: all; last, the last k; mask, step i with probability (i + 1) / (T + 1);
    uniform, the last K with K drawn from 1..T; normal, from a cut in 1..T-1 drawn from N(0.84 T, 0.1 T) on;
    spaced, k steps at equal distances. One draw serves all rows of an update."""
    k: int = Field(default=1, ge=1)
    """Of last and spaced."""
    detach_input: bool = False
    """Hide the latent's gradient from the network: no Jacobians of steps, only the linear path."""
    detach_latent: int | None = Field(default=None, ge=1)
    """Cut the latent's gradient before the last so many steps; none never does."""
    lv_samples: int = Field(default=0, ge=0)
    """n: noise the finished sample n times to the last timestep, and record those steps; 0 is off."""
    early_stop: int = Field(default=0, ge=0)
    """End each path after one of its last so many steps, at random, at the posterior mean; 0 runs all."""
    reward_input: Literal["sample", "posterior"] = "sample"
    """What is decoded at the end of a whole path: the sample, or the last step's posterior mean."""
    checkpoint_steps: bool = True
    """Recompute each recorded step and the decoder in the backward pass: memory then grows by one latent a
    step, not by a network's activations. gradient_checkpointing does so again within a step."""

    loss: Literal["maximise", "target", "hinge"] = "maximise"
    """maximise: -R. target: |R - target|. hinge: max(0, target - R)."""
    target: float | None = None
    """Of the losses target and hinge, in units of the reward."""
    loss_scale: float = Field(default=1.0, gt=0)
    """Multiplies the loss of the reward, not the penalty."""
    penalty: Literal["none", "l2", "kl"] = "none"
    """Of the recorded steps, against the reference at the same latents: the mean squared difference of the
    outputs, or the KL divergence of the steps (mean over the latent, needs eta above 0)."""
    penalty_weight: float = Field(default=0.0, ge=0)
    """Weight of the penalty's sum over a path."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: dict[str, Any]) -> dict[str, Any]:
        preset = values.get("preset", cls.model_fields["preset"].default)
        return {**PRESETS.get(str(preset), {}), **values}
