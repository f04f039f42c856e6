"""Step-level preference optimisation: states x_s judged at the step that drew them. Zhang et al. 2025 (LPO).

Every step of a roll-out draws K candidates of one x_t; the best and the worst make a pair if their scores are
far enough apart, and the path goes on from a random one. One forward of the policy and one of the reference
(adapter off) serve the pair: log p(x_s | x_t) differs only in x_s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import rewards
from rewards.base import LatentReward
from rewards.latent.lrm import LRM
from rewards.loading import of_any_kind
from t2ialign.data.prompts import read_prompts
from t2ialign.diffusion.noise import generator
from t2ialign.evaluation.panel import Trained
from t2ialign.methods.lpo.config import Config
from t2ialign.methods.lpo.presets import PRESETS
from t2ialign.methods.lpo.rounds import Round, Rounds, Rows
from t2ialign.methods.lpo.step_sampler import StepSampler, log_probs
from t2ialign.methods.lpo.step_scorers import LatentScorer, PixelScorer, PlainLatentScorer, StepScorer
from t2ialign.models.base import Cond
from t2ialign.objectives.preference import wins
from t2ialign.objectives.stepwise import candidate_preference, clipped_surrogate, group_advantages
from t2ialign.progress import Progress
from t2ialign.training import base, checkpoint
from t2ialign.training.conversion import SD, SDXL, Published
from t2ialign.training.facts import Facts
from t2ialign.training.latent_score import check_latents
from t2ialign.training.output import CHECKPOINTS
from t2ialign.training.prompts import Prompts
from t2ialign.training.watch.heldout_reward import IMAGES, starting_reward

ORDER = 3
"""First part of the random key of a round's order; the sampler has 0 to 2."""
BEFORE = -1
"""Number of the round of paths that shows the reward at the start; training's begin at 0."""
BANDS = 4
"""Equal parts of the training times, from the least noise to the most, in which valid rows are counted."""
BARREN = 20
"""Rounds in a row without one update's worth of valid rows that end a run."""


@dataclass(frozen=True)
class Batch:
    """Judged states, the better one of a pair first; each x_t has M / X of the x_s."""

    x_t: Tensor
    """(B, X, C, h, w): 1 that candidates share, or 2 of a pair of paths"""
    x_s: Tensor
    """(B, M, C, h, w): 2 of a pair, K of a group"""
    t: Tensor
    """(B,) times"""
    s: Tensor
    """(B,) the less noisy times"""
    cond: Cond
    """B prompts"""
    scores: Tensor
    """(B, M)"""
    log_probs: Tensor
    """(B, M) under the policy that sampled them"""


class Trainer(base.Trainer[Config, Batch]):
    """Samples a round, keeps what is clearly better or worse, learns from it once, and samples the next.

    reward: the loaded reward, which is then `cfg.reward`; else it is loaded by that name.
    """

    method = "lpo"
    times: Tensor
    decodes = True
    any_reward = True

    def __init__(
        self, cfg: Config, *, policy: Any = None, reward: rewards.Reward | LatentReward | None = None
    ) -> None:
        self._given = None if reward is None else of_any_kind(reward)
        self.supplied |= {"reward"} if reward is not None else frozenset()
        super().__init__(cfg, policy=policy)

    def setup(self) -> None:
        """Encode every prompt once, load the judge. Raises ValueError for settings that leave no step."""
        cfg = self.cfg
        self.prompts = Prompts(self.policy, read_prompts(cfg.prompts))
        self.shown = (self.validation_prompts or self.prompts.texts)[:IMAGES]
        self.keep_prompts += self.shown
        self.reward = self._given or rewards.load(cfg.reward, **cfg.reward_options)
        self.sampler = StepSampler(cfg, self.state, self.prompts, self._scorer())
        self.times = self.sampler.times
        self.rounds, self.round, self.start = Rounds(cfg.output / "rounds"), -1, 0
        self.data: Rows = {}
        if self.accelerator.is_main_process:
            self.rounds.cut(self.state.step)
        self.accelerator.wait_for_everyone()

    def _scorer(self) -> StepScorer:
        if isinstance(self.reward, LatentReward):
            check_latents(self.reward, self.policy)
        if isinstance(self.reward, LRM):
            return LatentScorer(self.reward, self.prompts.texts, self.accelerator.device)
        if isinstance(self.reward, LatentReward):
            return PlainLatentScorer(self.reward, self.prompts.texts, self.accelerator.device)
        return PixelScorer(self.reward, self.prompts, guidance_scale=self.cfg.guidance_scale)

    def before_step(self) -> dict[str, float]:
        """Sample rounds until one has an update's worth of valid rows -> the figures of the last one."""
        step, sampled = self.state.step, dict[str, float]()
        usable = self.rounds.at(step)
        for _ in range(BARREN):
            if usable is not None or self.stopping:
                break
            usable, sampled = self._sample(self.rounds.next_number(step))
        if self.stopping:
            return {}
        if usable is None:
            raise ValueError(
                f"got {BARREN} rounds without {self.state.global_batch} valid rows, an update's worth; "
                "expected states that the reward tells apart; lower threshold_low and threshold_high, or the "
                "batch, or raise reward_scale"
            )
        if usable.number != self.round:
            self.data = self.rounds.read(usable.number)
            self.round, self.start = usable.number, usable.start
        return sampled

    def _sample(self, number: int) -> tuple[Round | None, dict[str, float]]:
        """Sample, share and index one round -> it, if it is good for an update, and its figures."""
        accelerator, sampler = self.accelerator, self.sampler
        chunks = sampler.chunks()[accelerator.process_index :: accelerator.num_processes]
        parts, seen = [sampler.no_rows()], [torch.zeros(0)]
        for chunk in Progress(
            chunks, desc=f"round {number}", delay=3, disable=not accelerator.is_main_process
        ):
            if self.stopping:  # all processes alike
                return None, {}
            rows, scores = sampler.rows(number, chunk)
            parts.append(rows)
            seen.append(scores)
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        self.rounds.write_part(number, accelerator.process_index, joined)
        every = torch.cat(seen)
        sums = torch.stack([every.sum(), torch.tensor(float(len(every)))]).to(accelerator.device)
        total = accelerator.reduce(sums, "sum")
        accelerator.wait_for_everyone()
        t = self.rounds.read(number, accelerator.num_processes)["t"]
        sampled = Round(number, self.state.step, len(t) // self.state.global_batch, accelerator.num_processes)
        if accelerator.is_main_process:
            self.rounds.finish(sampled, oldest=self._oldest_checkpoint())
        accelerator.wait_for_everyone()
        bands = torch.bincount(self._band(t), minlength=BANDS)
        figures = {"step_reward": float(total[0] / total[1]), "valid": float(len(t))}
        figures |= {f"valid_band_{i}": float(count) for i, count in enumerate(bands)}
        return (sampled if sampled.updates else None), figures

    def _band(self, t: Tensor) -> Tensor:
        """The number of the band of each time (N,), long (N,)."""
        return (t * BANDS / self.policy.num_train_timesteps).long().clamp_max(BANDS - 1)

    def _oldest_checkpoint(self) -> int:
        return checkpoint.step_of(checkpoint.whole(self.cfg.output / CHECKPOINTS)[0])

    def batch(self, step: int, micro: int) -> Batch:
        """Rows of the round in random order, each once; what fills no update is left out."""
        draw = generator(ORDER, self.cfg.seed, self.round)
        order = torch.randperm(len(self.data["order"]), generator=draw)
        first = (step - self.start) * self.state.global_batch
        chosen = order[[first + row for row in self.rows(micro)]]
        part = {name: value[chosen].to(self.accelerator.device) for name, value in self.data.items()}
        part.pop("order")
        cond = self.prompts.cond(part.pop("prompt").cpu())
        return Batch(cond=cond, **part)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """One forward of the policy for all states of a row, and for a preference one of the reference."""
        cfg, ours = self.cfg, self._log_probs(batch)
        if cfg.loss == "grpo":
            ratio = ours - batch.log_probs
            losses = clipped_surrogate(ratio, group_advantages(batch.scores), clip=cfg.clip)
            return losses, {"clipfrac": self._beyond(ratio), "ratio": ratio.detach()}
        with self.policy.reference():
            reference = self._log_probs(batch)
        ratio = ours - reference
        win, lose = ratio.unbind(1)
        margin = (win - lose).detach()
        return candidate_preference(win, lose, beta=cfg.beta, clip=cfg.clip), {
            "implicit_acc": wins(margin),
            "margin": margin,
            "gap": batch.scores[:, 0] - batch.scores[:, 1],
            "clipfrac": self._beyond(ratio),
        }

    def _log_probs(self, batch: Batch) -> Tensor:
        """log p(x_s | x_t), mean over the latent, (B, M), from one forward of the B X states x_t."""
        B, X = batch.x_t.shape[:2]
        t, s = batch.t.repeat_interleave(X), batch.s.repeat_interleave(X)
        cond = {name: value.repeat_interleave(X, 0) for name, value in batch.cond.items()}
        p = self.policy.step(
            batch.x_t.flatten(0, 1),
            t,
            s,
            cond,
            kernel=self.sampler.kernel,
            guidance_scale=self.cfg.guidance_scale,
        )
        return log_probs(p, batch.x_s.reshape(B * X, -1, *batch.x_s.shape[2:])).view(B, -1)

    def _beyond(self, ratio: Tensor) -> Tensor:
        """Whether each ratio is outside the clip range, where it teaches nothing."""
        quotient = ratio.detach().exp()
        return ((quotient < 1 - self.cfg.clip) | (quotient > 1 + self.cfg.clip)).float()

    @property
    def trained_reward(self) -> Trained | None:
        """The reward that is trained, for the monitor; a latent reward cannot score its images."""
        return None if isinstance(self.reward, LatentReward) else (self.cfg.reward, self.reward)

    def facts(self) -> Facts:
        """The prompts, how paths are sampled, the reward at the start, and beta or clip at this latent."""
        cfg, facts, preference = self.cfg, super().facts(), self.cfg.loss == "preference"
        path = f"{cfg.num_inference_steps} steps, guidance {cfg.guidance_scale:g}"
        path += f", {self.sampler.kernel}, {cfg.compare} compared"
        gap = f"p_best - p_worst above {cfg.threshold_low:g}"
        if cfg.threshold_high != cfg.threshold_low:
            gap += f" to {cfg.threshold_high:g}, by {cfg.threshold_schedule}"
        sizes = (SD,) if cfg.preset == "d3po" else (SD, SDXL)
        beta = Published("beta", PRESETS[cfg.preset]["beta"], cfg.beta, "strength", sizes)
        clip = Published("clip", PRESETS["grpo"]["clip"], cfg.clip, "bound", (SD, SDXL))
        return replace(
            facts,
            unit="prompts",
            train=len(self.prompts.texts),
            more={
                "rounds": f"{cfg.collect_prompts} prompts",
                "sampling": path,
                "valid rows": gap,
                "reward": cfg.reward,
                **facts.more,
            },
            published=(beta if preference else clip,),
            watched={"step_reward": None} | ({"margin": 0.0} if preference else {}),
            levers={
                name: getattr(cfg, name) for name in ("lr", "lora_rank", "guidance_scale", "beta", "clip")
            },
            start=self.start_reward,
        )

    def start_reward(self) -> str:
        """The mean reward of images of the weights at hand; a latent reward judges the states of paths."""
        cfg = self.cfg
        if not isinstance(self.reward, LatentReward):
            return starting_reward(self.policy, self.reward, self.shown, cfg, batch_size=cfg.rollout_batch)
        _, scores = self.sampler.rows(BEFORE, range(IMAGES // 2))
        words = f"of the states of {IMAGES // 2} paths at guidance {cfg.guidance_scale:g}"
        return f"mean {cfg.reward} before training {float(scores.mean()):.4g}, {words}"

    def data_card(self) -> str:
        """The prompts and the judge, for the model card."""
        count = len(self.prompts.texts)
        return f"{count} prompts from {self.cfg.prompts}, {self.cfg.compare} judged by {self.cfg.reward}"
