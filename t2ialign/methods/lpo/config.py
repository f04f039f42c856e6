"""Settings of train lpo."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from t2ialign.methods.lpo.presets import FOR_SDXL, LPO, PRESETS
from t2ialign.training.settings import TrainConfig


class Config(TrainConfig):
    """Settings of train lpo."""

    FREE: ClassVar[frozenset[str]] = TrainConfig.FREE | {"rollout_batch"}

    preset: Literal["lpo", "spo", "d3po", "grpo"] = "lpo"
    """A published recipe: it sets the defaults of what you leave out; lpo and spo have others for Stable
    Diffusion XL (methods/lpo/presets.py)."""
    prompts: str
    """A file of prompts (txt, jsonl, json, csv, tsv, parquet), or one prompt typed in place."""
    reward: str = "latent"
    """latent judges states as they are; any other name of rewards.load, images of their one-step x_0."""
    reward_options: dict[str, Any] = Field(default={})
    """Keywords of that reward, such as reward_options.path=runs/lrm."""
    reward_scale: float = Field(default=1.0, gt=0)
    """What scores are multiplied by before thresholds: about 100 for a plain cosine."""

    num_steps: int = Field(default=20, ge=1, le=1000)
    """T: DDIM steps of a path, eta 1."""
    guidance: float = Field(default=5.0, ge=1)
    """Classifier-free guidance, the same in sampling and in training."""
    compare: Literal["siblings", "trajectories"] = LPO["compare"]
    """siblings of one state at each step, or two whole paths: each step of the better one is better."""
    siblings: int = Field(default=LPO["siblings"], ge=2)
    """K: states drawn from one p(x_s | x_t)."""
    t_min: int = Field(default=0, ge=0, le=999)
    """Only steps from a t of at least so much are learnt from."""
    t_max: int = Field(default=LPO["t_max"], ge=0, le=999)
    """And at most so much."""
    threshold_low: float = Field(default=LPO["threshold_low"], ge=0, lt=1)
    """p_best - p_worst, of a softmax of the two scores, that a pair must exceed at the least noise; of whole
    paths, everywhere."""
    threshold_high: float = Field(default=LPO["threshold_high"], ge=0, lt=1)
    """The same at the most noise."""
    threshold_schedule: Literal["std", "variance", "linear"] = "std"
    """What the threshold grows with between them."""
    collect_prompts: int = Field(default=LPO["collect_prompts"], ge=1)
    """Prompts of a round, over all processes; its rows are learnt from once."""
    rollout_batch: int = Field(default=5, ge=1)
    """Prompts sampled at once."""

    loss: Literal["preference", "grpo"] = LPO["loss"]
    """preference: better against worse, to the reference. grpo: all siblings, to the sampling policy."""
    beta: float = Field(default=LPO["beta"], gt=0)
    """Of preference, on log-ratios that are means over the latent."""
    clip: float = Field(default=LPO["clip"], gt=0, lt=1)
    """Ratios beyond 1 -+ clip have no gradient."""

    lora_rank: int = Field(default=LPO["lora_rank"], ge=0)
    """Rank of the LoRA; 0 trains all weights and pays for a frozen copy of them as the reference."""
    batch_size: int = Field(default=LPO["batch_size"], ge=1)
    """Rows per process and micro-step."""
    lr: float = Field(default=LPO["lr"], gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=LPO["weight_decay"], ge=0)
    """Of AdamW."""

    @model_validator(mode="wrap")
    @classmethod
    def _fill_from_preset(cls, values: dict[str, Any], handler: ModelWrapValidatorHandler[Self]) -> Self:
        preset = values.get("preset", cls.model_fields["preset"].default)
        cfg = handler({**PRESETS.get(str(preset), {}), **values})
        cfg.model_fields_set.intersection_update(values)  # a preset's values count as defaults
        return cfg

    def for_family(self, family: str) -> Self:
        """The same with the preset's values for a family of models ("sdxl") in place of its defaults."""
        recipe = FOR_SDXL.get(self.preset, {}) if family == "sdxl" else {}
        return self.model_copy(update={k: v for k, v in recipe.items() if k not in self.model_fields_set})

    @model_validator(mode="after")
    def _one_state_for_a_group(self) -> Config:
        if self.loss == "grpo" and self.compare == "trajectories":
            raise ValueError(
                "got loss=grpo with compare=trajectories; expected siblings, which share a state"
            )
        return self
