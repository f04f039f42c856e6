"""Step-level preference optimisation: siblings x_s of one x_t, judged as they are. Zhang et al. 2025 (LPO).

Every step of a roll-out draws K siblings; the best and the worst make a pair if their scores are far enough
apart, and the path goes on from a random one. Both siblings come from one x_t, so one forward of the policy
and one of the reference serve the pair: log p(x_s | x_t) differs only in x_s.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from tqdm import tqdm

import rewards
from rewards.base import LatentReward
from rewards.latent import LRM
from t2ialign.data.prompts import read_prompts
from t2ialign.diffusion.noise import generator, normal_rows
from t2ialign.diffusion.siblings import Step, sibling_rollout
from t2ialign.diffusion.transition import Gaussian
from t2ialign.models.base import Cond
from t2ialign.objectives.stepwise import (
    Schedule,
    best_and_worst,
    clipped_surrogate,
    group_advantages,
    sibling_preference,
    threshold,
)
from t2ialign.trainers import base
from t2ialign.trainers.pairwise import wins
from t2ialign.trainers.prompts import Prompts
from t2ialign.trainers.rounds import Round, Rounds, Rows
from t2ialign.trainers.step_scorers import LatentScorer, PixelScorer, StepScorer

PATH, PROMPT, CHOICE, ORDER = range(4)
"""First part of a random key: a path's noise, the order of the prompts, which sibling goes on, the rows."""
START = -1
"""Step number of the first noise of a path."""
BANDS = 4
"""Equal parts of 0 .. 999 in which valid pairs are counted."""
BARREN = 20
"""Rounds in a row without one update's worth of valid pairs that end a run."""

# Zhang et al. 2025, released code for SD1.5 (lr 5e-5 in the paper, 6e-5 in the code).
LPO: dict[str, Any] = {"beta": 500.0, "clip": 0.1, "threshold_low": 0.35, "threshold_high": 0.5}
PRESETS: dict[str, dict[str, Any]] = {
    "lpo": LPO,
    # Liang et al. 2024: a reward of images on the one-step x_0, constant threshold, no t above 750.
    "spo": {
        "beta": 10.0,
        "clip": 0.1,
        "threshold_low": 0.4,
        "threshold_high": 0.4,
        "t_max": 750,
        "reward": "pickscore",
    },
    # LPO's table: the same siblings, standardised scores and PPO's clip in place of a pair.
    "grpo": {**LPO, "loss": "grpo", "clip": 1e-4, "threshold_low": 0.0, "threshold_high": 0.0},
}


class Config(base.TrainConfig):
    """Settings of train lpo."""

    FREE: ClassVar[frozenset[str]] = base.TrainConfig.FREE | {"rollout_batch"}

    preset: Literal["lpo", "spo", "grpo"] = "lpo"
    """A published recipe: it sets the defaults of what you leave out."""
    prompts: str
    """A file of prompts (txt, jsonl, csv), or one prompt typed in place."""
    reward: str = "latent"
    """latent judges the siblings as they are; any other name of rewards.load, their one-step x_0."""
    reward_options: dict[str, Any] = Field(default={})
    """Keywords of that reward, such as reward_options.path=runs/lrm."""

    num_steps: int = Field(default=20, ge=1, le=1000)
    """T: DDIM steps of a path, eta 1."""
    guidance: float = Field(default=5.0, ge=1)
    """Classifier-free guidance, the same in sampling and in training."""
    siblings: int = Field(default=4, ge=2)
    """K: states drawn from one p(x_s | x_t)."""
    t_min: int = Field(default=0, ge=0, le=999)
    """Only steps from a t of at least so much are learnt from."""
    t_max: int = Field(default=950, ge=0, le=999)
    """And at most so much, rounded up to the grid's next."""
    threshold_low: float = Field(default=0.35, ge=0, lt=1)
    """p_best - p_worst that a pair must exceed at the least noise."""
    threshold_high: float = Field(default=0.5, ge=0, lt=1)
    """The same at the most noise."""
    threshold_schedule: Schedule = "std"
    """What the threshold grows with between them."""
    collect_prompts: int = Field(default=20, ge=1)
    """Prompts of a round, over all processes; its pairs are learnt from once."""
    rollout_batch: int = Field(default=5, ge=1)
    """Paths sampled at once."""

    loss: Literal["preference", "grpo"] = "preference"
    """preference: best against worst, against the reference. grpo: all siblings, against the sampling policy."""
    beta: float = Field(default=500.0, gt=0)
    """Of preference, on log-ratios that are means over the latent."""
    clip: float = Field(default=0.1, gt=0, lt=1)
    """Ratios beyond 1 -+ clip have no gradient."""

    batch_size: int = Field(default=10, ge=1)
    """Pairs per process and micro-step."""
    lr: float = Field(default=6e-5, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Of AdamW."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: dict[str, Any]) -> dict[str, Any]:
        preset = values.get("preset", cls.model_fields["preset"].default)
        return {**PRESETS.get(preset, {}), **values}


@dataclass(frozen=True)
class Batch:
    """Judged siblings: of a pair the better one first."""

    x_t: Tensor
    """(B, C, h, w)"""
    x_s: Tensor
    """(B, M, C, h, w): 2 of a pair, K of a group"""
    t: Tensor
    """(B,) long"""
    s: Tensor
    """(B,) long"""
    cond: Cond
    """B prompts"""
    scores: Tensor
    """(B, M)"""
    log_probs: Tensor
    """(B, M) under the policy that sampled them"""


class Trainer(base.Trainer[Config, Batch]):
    """Samples a round, keeps what is clearly better or worse, learns from it once, and samples the next."""

    method = "lpo"
    decodes = True
    any_reward = True

    def setup(self) -> None:
        """Encode every prompt once, load who judges."""
        cfg, policy = self.cfg, self.policy
        self.prompts = Prompts(policy, read_prompts(cfg.prompts))
        self.times = policy.times(cfg.num_steps)
        self.shape = policy.latent_shape(*policy.native_size)
        self.scorer = self._scorer()
        self.judged = self._judged_steps()
        self.rounds, self.round = Rounds(cfg.output / "rounds"), -1
        self.rows_: Rows = {}
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def _scorer(self) -> StepScorer:
        cfg, device = self.cfg, self.accelerator.device
        reward = rewards.load(cfg.reward, **cfg.reward_options)
        if isinstance(reward, LatentReward):
            assert isinstance(reward, LRM), "the only latent reward there is"
            return LatentScorer(reward, self.prompts.texts, device)
        return PixelScorer(reward, self.policy, self.prompts.texts, guidance=cfg.guidance)

    def _judged_steps(self) -> dict[int, float]:
        """Step number -> std of p(x_s | x_t), of those with noise and with t in range."""
        cfg, times = self.cfg, self.times
        zero = torch.zeros(1, *self.shape, device=self.policy.device)
        found = {}
        for i in range(cfg.num_steps):
            t, s = times[i].view(1), times[i + 1].view(1)
            std = float(self.policy.transition(zero, zero, t, s, eta=1.0).std)
            if std > 0 and cfg.t_min <= int(t) <= cfg.t_max + 1:  # the grid's t are 1 more than tens
                found[i] = std
        if not found:
            raise ValueError(
                f"got t_min={cfg.t_min}, t_max={cfg.t_max}, which no step of num_steps={cfg.num_steps} falls "
                "into; expected one to learn from; widen them"
            )
        return found
