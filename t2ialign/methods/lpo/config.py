"""Settings of train lpo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from t2ialign.methods.lpo.presets import FOR_SDXL, LPO, PRESETS
from t2ialign.training.settings import PresetConfig


class Config(PresetConfig):
    """Settings of train lpo."""

    EXAMPLES: ClassVar[str] = r"""
  Align the toy model with a latent reward, on a laptop:
    t2ialign train lpo -c lpo_toy reward_options.path=runs/lrm output=runs/toy
  Align Stable Diffusion 1.5 with the latent reward of t2ialign train lrm:
    t2ialign train lpo prompts=prompts.txt reward_options.path=runs/lrm \
      model=stable-diffusion-v1-5/stable-diffusion-v1-5
  Compare denoising steps by PickScore, as SPO does:
    t2ialign train lpo preset=spo prompts=prompts.txt model=my_model.safetensors
"""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    FREE: ClassVar[frozenset[str]] = PresetConfig.FREE | {"rollout_batch"}

    preset: Literal["lpo", "spo", "d3po", "grpo"] = "lpo"
    """The published recipe whose values become the defaults of the settings that you leave out. lpo and spo
    have other values for Stable Diffusion XL; methods/lpo/presets.py lists them."""
    prompts: str
    """A file of prompts (txt, jsonl, json, csv, tsv or parquet), or one prompt."""
    reward: str = "latent"
    """The reward that judges each denoising step: latent judges noisy latents directly; any other name of
    rewards.load judges the image of the one-step prediction of x_0."""
    reward_options: dict[str, Any] = Field(default={})
    """The options of the reward, such as reward_options.path=runs/lrm."""
    reward_scale: float = Field(default=1.0, gt=0)
    """The factor of the scores before thresholds are applied: about 100 for a plain cosine similarity."""

    num_inference_steps: int = Field(default=20, ge=1)
    """The number T of denoising steps per image."""
    guidance_scale: float = Field(default=5.0, ge=1)
    """The scale of classifier-free guidance, the same in sampling and in training; 1 is off."""
    compare: Literal["candidates", "trajectories"] = LPO["compare"]
    """What is compared: candidates are states drawn from one earlier state at each step; trajectories are two
    whole denoising paths, of which every step of the better one counts as better."""
    candidates: int = Field(default=LPO["candidates"], ge=2)
    """The number K of states that are drawn from one p(x_s | x_t)."""
    t_min: float = Field(default=0, ge=0)
    """The lowest time whose step is trained on: 0 to 999 for Stable Diffusion, 1000 sigma for flow models."""
    t_max: float = Field(default=LPO["t_max"], ge=0)
    """The highest time whose step is trained on; higher is noisier."""
    threshold_low: float = Field(default=LPO["threshold_low"], ge=0, lt=1)
    """The threshold at the lowest noise level, for a pair of two states to be trained on: p_best - p_worst,
    of a softmax of the two scores, must exceed it. For whole paths it holds at every noise level."""
    threshold_high: float = Field(default=LPO["threshold_high"], ge=0, lt=1)
    """The threshold at the highest noise level."""
    threshold_schedule: Literal["std", "variance", "linear"] = "std"
    """The quantity with which the threshold grows between the two noise levels."""
    collect_prompts: int = Field(default=LPO["collect_prompts"], ge=1)
    """The number of prompts that are sampled in a round, over all processes. The rows of a round are trained
    on once."""
    rollout_batch: int = Field(default=5, ge=1)
    """The number of prompts whose images are sampled at a time."""

    loss: Literal["preference", "grpo"] = LPO["loss"]
    """The loss. preference: the better state against the worse one, relative to the reference model. grpo:
    all states of a group, relative to the policy that sampled them."""
    beta: float = Field(default=LPO["beta"], gt=0)
    """The strength of the tie to the reference model in the preference loss, for log-ratios that are means
    over the latent."""
    clip: float = Field(default=LPO["clip"], gt=0, lt=1)
    """The clipping range: probability ratios below 1 - clip or above 1 + clip have no gradient."""

    lora_rank: int = Field(default=LPO["lora_rank"], ge=0)
    """The rank of the LoRA. With 0 all weights are trained, and a frozen copy of them is held in memory as
    the reference."""
    batch_size: int = Field(default=LPO["batch_size"], ge=1)
    """The number of rows per process and micro-step."""
    lr: float = Field(default=LPO["lr"], gt=0)
    """The peak learning rate."""
    weight_decay: float = Field(default=LPO["weight_decay"], ge=0)
    """The weight decay of the AdamW optimiser."""

    def for_family(self, family: str) -> Self:
        """A copy with the preset's values for a family of models ("sdxl") in place of its defaults."""
        recipe = FOR_SDXL.get(self.preset, {}) if family == "sdxl" else {}
        return self.with_defaults(recipe)

    @model_validator(mode="after")
    def _one_state_for_a_group(self) -> Config:
        if self.loss == "grpo" and self.compare == "trajectories":
            raise ValueError(
                "got loss=grpo with compare=trajectories; expected candidates, which share a state"
            )
        return self
