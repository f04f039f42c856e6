"""Settings of train backprop."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from t2ialign.methods.backprop.presets import PRESETS
from t2ialign.training.settings import PathConfig


class Config(PathConfig):
    """Settings of train backprop."""

    EXAMPLES: ClassVar[str] = r"""
  Align the toy model with the gradient of its CLIP reward, on a laptop:
    t2ialign train backprop -c backprop_toy output=runs/toy
  Use DRaFT-1 to raise the aesthetic score of Stable Diffusion 1.5:
    t2ialign train backprop preset=draft-k prompts=prompts.txt reward=aesthetic \
      model=stable-diffusion-v1-5/stable-diffusion-v1-5
  Use a latent reward of t2ialign train lrm, which scores latents without decoding them:
    t2ialign train backprop -c backprop_toy reward=latent reward_options.path=runs/lrm_toy
  Watch a held-out reward, and stop when it falls:
    t2ialign train backprop -c backprop_sd15 prompts=prompts.txt monitor_prompts=heldout.txt \
      monitor_rewards=pickscore stop_on_hack=true
"""

    FREE: ClassVar[frozenset[str]] = PathConfig.FREE | {"heldout_prompts", "checkpoint_steps"}

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
    """The published recipe whose values become the defaults of the settings that you leave out;
    methods/backprop/presets.py lists them."""

    prompts: str
    """A file of prompts (txt, jsonl, json, csv, tsv or parquet), or one prompt."""
    heldout_prompts: str | None = None
    """A file of prompts, or one prompt, that training never sees. The mean reward of their images is measured
    at fixed seeds."""
    reward: str = "toy-clip"
    """The reward to maximise: any name of rewards.load whose scores have gradients. latent scores the sampled
    latents directly, and no image is decoded for it."""
    reward_options: dict[str, Any] = Field(default={})
    """The options of the reward, such as reward_options.weights=scorer.safetensors."""
    reward_precision: Literal["fp32", "bf16"] = "fp32"
    """The number format of the reward: fp32, or bf16, which runs it under autocast."""

    height: int | None = Field(default=None, ge=1)
    """The height of the training images in pixels; none is the model's default."""
    width: int | None = Field(default=None, ge=1)
    """The width of the training images in pixels; none is the model's default."""
    num_inference_steps: int = Field(default=50, ge=1)
    """The number T of denoising steps per image."""
    guidance_scale: float = Field(default=7.5, ge=1)
    """The scale of classifier-free guidance during training; 1 is off. Gradients flow through both of its
    predictions."""
    eta: float = Field(default=0.0, ge=0)
    """The noise that the kernel adds in each step: eta of ddim, where 0 is deterministic and 1 is DDPM, and a
    of flow_sde and cps. At 0 all three are the ODE."""

    record: Literal["all", "last", "mask", "uniform", "normal", "spaced"] = "last"
    """The denoising steps that record gradients. all: every step. last: the last k steps. mask: step i with
    probability (i + 1) / (T + 1). uniform: the last K steps, with K drawn from 1 to T. normal: all steps from
    a step on that is drawn from N(0.84 T, 0.1 T) within 1 to T - 1. spaced: k steps at equal distances. One
    draw serves all images of an update."""
    k: int = Field(default=1, ge=1)
    """The number of steps that record gradients with record=last and record=spaced."""
    detach_input: bool = False
    """Hide the gradient of the latent from the network, so that gradients flow along the linear path alone
    and no Jacobian of a step is computed."""
    detach_latent: int | None = Field(default=None, ge=1)
    """The number of last steps before which the gradient of the latent is cut; none never cuts it."""
    lv_samples: int = Field(default=0, ge=0)
    """The number n of times that the finished sample is noised to the last timestep and denoised again with
    gradients (DRaFT-LV); 0 switches this off."""
    early_stop: int = Field(default=0, ge=0)
    """The number of last steps among which the end of each denoising path is drawn at random; its posterior
    mean is the image then. 0 runs every path to its end."""
    reward_input: Literal["sample", "posterior"] = "sample"
    """What is scored at the end of a whole path: the sample, or the posterior mean of the last step."""
    checkpoint_steps: bool = True
    """Recompute each recorded step and the decoder in the backward pass. Memory then grows by one latent per
    step instead of all activations of the network; gradient_checkpointing does the same within a step."""

    loss: Literal["maximise", "target", "hinge"] = "maximise"
    """The loss as a function of the reward R. maximise: -R. target: |R - target|. hinge: max(0, target -
    R)."""
    target: float | None = None
    """The target of the losses target and hinge, in units of the reward."""
    loss_scale: float = Field(default=1.0, gt=0)
    """The factor of the reward's loss. The penalty is not multiplied by it."""
    penalty: Literal["none", "l2", "kl"] = "none"
    """The penalty for leaving the reference model, computed in the recorded steps at the same latents. l2:
    the mean squared difference of the network outputs. kl: the KL divergence of the steps, averaged over the
    latent, which needs eta above 0."""
    penalty_weight: float = Field(default=0.0, ge=0)
    """The weight of the penalty, which is summed over a path."""

    @property
    def sides(self) -> tuple[int, ...]:
        """The height and the width that are set."""
        return tuple(side for side in (self.height, self.width) if side is not None)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: dict[str, Any]) -> dict[str, Any]:
        preset = values.get("preset", cls.model_fields["preset"].default)
        return {**PRESETS.get(str(preset), {}), **values}
