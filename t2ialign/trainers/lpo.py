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
    """preference: best against worst, to the reference. grpo: all siblings, to the sampling policy."""
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
        self.rounds, self.round, self.start = Rounds(cfg.output / "rounds"), -1, 0
        self.data: Rows = {}
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

    def before_step(self) -> dict[str, float]:
        """Sample rounds until one has an update's worth of valid rows -> what the last one was like."""
        step, found = self.state.step, self.rounds.at(self.state.step)
        sampled: dict[str, float] = {}
        for _ in range(BARREN):
            if found is not None or self.stopping:
                break
            found, sampled = self._sample_round(self.rounds.next_number(step))
        if self.stopping:
            return {}
        if found is None:
            raise ValueError(
                f"got {BARREN} rounds without {self.state.global_batch} valid rows, an update's worth; "
                "expected siblings that the reward tells apart; lower threshold_low and threshold_high, or the batch"
            )
        if found.number != self.round:
            self.data = self.rounds.read(found.number, self.accelerator.num_processes)
            self.round, self.start = found.number, found.start
        return sampled

    def _sample_round(self, number: int) -> tuple[Round | None, dict[str, float]]:
        """Sample, share and index one round -> it, if it is good for an update, and its figures."""
        cfg, accelerator, step = self.cfg, self.accelerator, self.state.step
        self.save_once()  # a round is a pure function of these weights
        places = list(range(cfg.collect_prompts))[accelerator.process_index :: accelerator.num_processes]
        chunks = [places[i : i + cfg.rollout_batch] for i in range(0, len(places), cfg.rollout_batch)]
        bar = tqdm(chunks, desc=f"round {number}", delay=3, disable=not accelerator.is_main_process)
        parts, figures = [], []
        for chunk in bar:
            if self.stopping:
                return None, {}
            rows, seen = self._paths(number, chunk)
            parts.append(rows)
            figures.append(seen)
        empty = self._no_rows()
        joined = {name: torch.cat([part[name] for part in [*parts, empty]]) for name in empty}
        self.rounds.write_part(number, accelerator.process_index, joined)
        accelerator.wait_for_everyone()
        valid = len(self.rounds.read(number, accelerator.num_processes)["order"])
        found = Round(number, step, valid // self.state.global_batch)
        if accelerator.is_main_process:
            self.rounds.finish(found, keep=number - cfg.checkpoint_limit - 1)
        accelerator.wait_for_everyone()
        return (found if found.updates else None), self._figures(figures, valid)

    @torch.no_grad()
    def _paths(self, number: int, places: list[int]) -> tuple[Rows, dict[str, Tensor]]:
        """Roll out some prompts of a round -> the rows to learn from, and what was seen."""
        cfg, policy = self.cfg, self.policy
        prompts = self._prompt_of(number, places)
        keys = [(PATH, cfg.seed, number, place) for place in places]
        cond = self.prompts.cond(prompts)

        def noise(step: int) -> Tensor:
            rows = [(*key, step, k) for key in keys for k in range(cfg.siblings)]
            return normal_rows(self.shape, rows).unflatten(0, (len(keys), cfg.siblings))

        def choice(step: int) -> Tensor:
            draws = [generator(CHOICE, *key[1:], step) for key in keys]
            return torch.stack([torch.randint(cfg.siblings, (), generator=draw) for draw in draws])

        x_T = normal_rows(self.shape, [(*key, START) for key in keys]).to(policy.device)
        found, scores = [], []
        with self.state.unwrapped():
            for step in sibling_rollout(
                policy, cond, x_T, self.times, eta=1.0, guidance=cfg.guidance, noise=noise, choice=choice
            ):
                if step.number not in self.judged:
                    continue
                scored = self.scorer.score(step, prompts, cond)
                scores.append(scored)
                found.append(self._learnable(step, scored, prompts, places))
        rows = {name: torch.cat([part[name] for part in found]).cpu() for name in found[0]}
        return rows, {"scores": torch.stack(scores), "t": rows["t"]}

    def _learnable(self, step: Step, scores: Tensor, prompts: Tensor, places: list[int]) -> Rows:
        """The rows of one step: best and worst siblings, or all of them, where their gap is large enough."""
        cfg, B = self.cfg, len(scores)
        best, worst, gap = best_and_worst(scores)
        stds = torch.tensor(list(self.judged.values()), device=scores.device)
        least = threshold(
            step.p.std.flatten(),
            step.t.expand(B),
            low=cfg.threshold_low,
            high=cfg.threshold_high,
            stds=stds,
            times=self.times[list(self.judged)].to(scores.device),
            schedule=cfg.threshold_schedule,
        )
        valid = (gap > least).nonzero().flatten()
        kept = (
            torch.stack([best, worst], 1)
            if cfg.loss == "preference"
            else torch.arange(cfg.siblings, device=scores.device).expand(B, -1)
        )[valid]
        order = torch.tensor(places, device=scores.device) * cfg.num_steps + step.number
        x_s = step.siblings[valid[:, None], kept]
        return {
            "x_t": step.x_t[valid],
            "x_s": x_s,
            "t": step.t.expand(len(valid)),
            "s": step.s.expand(len(valid)),
            "prompt": prompts.to(scores.device)[valid],
            "scores": scores.gather(1, kept) if len(valid) else scores[valid][:, : kept.shape[1]],
            "log_probs": sibling_log_probs(
                Gaussian(step.p.mean[valid], step.p.std.expand(B, 1, 1, 1)[valid]), x_s
            ),
            "order": order[valid],
        }

    def _no_rows(self) -> Rows:
        m = 2 if self.cfg.loss == "preference" else self.cfg.siblings
        long = torch.zeros(0, dtype=torch.long)
        numbers = dict.fromkeys(("t", "s", "prompt", "order"), long)
        states = {"x_t": torch.zeros(0, *self.shape), "x_s": torch.zeros(0, m, *self.shape)}
        return {**states, **numbers, "scores": torch.zeros(0, m), "log_probs": torch.zeros(0, m)}

    def _figures(self, seen: list[dict[str, Tensor]], valid: int) -> dict[str, float]:
        """Of this process's paths: the mean score (it should rise), and valid rows by noise band."""
        scores = torch.cat([part["scores"].flatten() for part in seen])
        t = torch.cat([part["t"] for part in seen])
        bands = torch.bincount((t * BANDS // 1000).clamp_max(BANDS - 1), minlength=BANDS)
        counts = {f"valid_band_{i}": float(count) for i, count in enumerate(bands)}
        return {"step_reward": float(scores.mean()), "valid": float(valid), **counts}

    def batch(self, step: int, micro: int) -> Batch:
        """Rows of the round in random order, each once; what fills no update is left out."""
        draw = generator(ORDER, self.cfg.seed, self.round)
        order = torch.randperm(len(self.data["order"]), generator=draw)
        first = (step - self.start) * self.state.global_batch
        chosen = order[[first + row for row in self.rows(micro)]]
        part = {name: value[chosen].to(self.accelerator.device) for name, value in self.data.items()}
        cond = self.prompts.cond(part["prompt"].cpu())
        return Batch(
            x_t=part["x_t"],
            x_s=part["x_s"],
            t=part["t"],
            s=part["s"],
            cond=cond,
            scores=part["scores"],
            log_probs=part["log_probs"],
        )

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """One forward of the policy for all siblings of a row, and for a preference one of the reference."""
        cfg = self.cfg
        log_probs = self._log_probs(batch)
        if cfg.loss == "grpo":
            ratio = log_probs - batch.log_probs
            losses = clipped_surrogate(ratio, group_advantages(batch.scores), clip=cfg.clip)
            return losses, {"clipfrac": self._beyond(ratio), "ratio": ratio.detach()}
        with self.policy.reference():
            ratio = log_probs - self._log_probs(batch)
        win, lose = ratio.unbind(1)
        losses = sibling_preference(win, lose, beta=cfg.beta, clip=cfg.clip)
        margin = (win - lose).detach()
        return losses, {
            "implicit_acc": wins(margin),
            "margin": margin,
            "gap": batch.scores[:, 0] - batch.scores[:, 1],
            "clipfrac": self._beyond(ratio),
        }

    def _log_probs(self, batch: Batch) -> Tensor:
        p = self.policy.step(batch.x_t, batch.t, batch.s, batch.cond, eta=1.0, guidance=self.cfg.guidance)
        return sibling_log_probs(p, batch.x_s)

    def _beyond(self, ratio: Tensor) -> Tensor:
        """Whether each ratio is outside the clip range, where it teaches nothing."""
        quotient = ratio.detach().exp()
        return ((quotient < 1 - self.cfg.clip) | (quotient > 1 + self.cfg.clip)).float()

    def _prompt_of(self, number: int, places: list[int]) -> Tensor:
        """Which prompts those places of a round have: every prompt once before any comes again."""
        size, first = len(self.prompts.texts), number * self.cfg.collect_prompts
        turns = [divmod(first + place, size) for place in places]
        return torch.stack([self._order(epoch)[place] for epoch, place in turns])

    def _shuffled(self, epoch: int) -> Tensor:
        return torch.randperm(len(self.prompts.texts), generator=generator(PROMPT, self.cfg.seed, epoch))

    def data_card(self) -> str:
        """Which prompts, and who judged."""
        count = len(self.prompts.texts)
        return f"{count} prompts from {self.cfg.prompts}, siblings judged by {self.cfg.reward}"


def sibling_log_probs(p: Gaussian, x_s: Tensor) -> Tensor:
    """log p of siblings (B, M, C, h, w) under one Gaussian a row -> (B, M), means over the latent."""
    M = x_s.shape[1]
    rows = Gaussian(p.mean.repeat_interleave(M, 0), p.std.repeat_interleave(M, 0))
    return rows.log_prob(x_s.flatten(0, 1)).view(-1, M)
