"""Dense-Reward preference training on whole sampling paths: early steps count more. Yang et al. 2024.

Paths are sampled by the current policy (by default DDIM with eta 1, and guidance), scored on their final
image by any reward, and compared by the discounted, clipped log-ratio of their steps against the reference
(adapter off).
The loss stays near ln 2 by design, |logit| <= temperature x clip: watch `reward`, `ratio` and `clipfrac`.
Log-ratios are means over the latent, so clip and temperature fit Stable Diffusion's 4 x 64 x 64 = 16,384
numbers; for a latent of D numbers the same limits are clip x 16384 / D and temperature x D / 16384.
Defaults are the paper's multi-prompt column; its single-prompt one is max_steps=10000 collect_every=2500
collect_prompts=1000 rollouts=5 timesteps=3 temperature=10 clip=1e-4 lora_rank=4 lr=3e-5 weight_decay=2e-3
batch_size=4 max_grad_norm=1.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rewards
from rewards.loading import of_images
from t2ialign.data.prompts import read_prompts
from t2ialign.diffusion.noise import generator
from t2ialign.evaluation.panel import Trained
from t2ialign.methods.dense import trajectories
from t2ialign.methods.dense.collector import Collector
from t2ialign.methods.dense.config import Config
from t2ialign.models.base import Cond
from t2ialign.objectives.listwise import best_first, plackett_luce, trajectory_logits
from t2ialign.objectives.preference import wins
from t2ialign.objectives.weighting import discount_probabilities
from t2ialign.training import base
from t2ialign.training.conversion import Published
from t2ialign.training.facts import Facts
from t2ialign.training.prompts import Prompts
from t2ialign.training.watch.heldout_reward import IMAGES, mean_reward, starting_reward

CHOICE, STEPS = 2, 3
"""First part of a random key: a row's paths, an update's steps. The collector has 0 and 1."""
LEVERS = ("lr", "max_grad_norm", "lora_rank", "guidance_scale", "temperature", "clip")
"""Settings that decide whether anything moves."""


@dataclass(frozen=True)
class Batch:
    """Steps of compared paths, best path first."""

    x_t: Tensor
    """(B, K, n, C, h, w)"""
    x_s: Tensor
    """(B, K, n, C, h, w), the state after the step"""
    t: Tensor
    """(n,) times"""
    s: Tensor
    """(n,) the less noisy times"""
    cond: Cond
    """B prompts"""
    weight: Tensor
    """(B,) 1, or 0 for a skipped tie"""


class Trainer(base.Trainer[Config, Batch]):
    """Collects paths every `collect_every` updates and learns from comparing them.

    reward: the loaded reward, which is then `cfg.reward`; else it is loaded by that name.
    """

    method = "dense"
    times: Tensor
    decodes = True
    any_reward = True

    def __init__(self, cfg: Config, *, policy: Any = None, reward: rewards.Reward | None = None) -> None:
        self._given = None if reward is None else of_images(reward)
        self.supplied |= {"reward"} if reward is not None else frozenset()
        super().__init__(cfg, policy=policy)

    def setup(self) -> None:
        """Encode every prompt once, load the reward. Raises ValueError for sizes that cannot be."""
        cfg, policy = self.cfg, self.policy
        if not cfg.compare <= cfg.keep <= cfg.rollouts:
            raise ValueError(
                f"got compare={cfg.compare}, keep={cfg.keep}, rollouts={cfg.rollouts}; "
                "expected compare <= keep <= rollouts; sample more paths or keep fewer"
            )
        self.prompts = Prompts(self.policy, read_prompts(cfg.prompts))
        self.heldout = read_prompts(cfg.heldout_prompts) if cfg.heldout_prompts else []
        self.shown = (self.validation_prompts or self.prompts.texts)[:IMAGES]
        self.keep_prompts += [*self.heldout, *self.shown]
        options = {cfg.reward: cfg.reward_options}
        reward = self._given or rewards.load_all(options, options)[cfg.reward]
        self.reward = reward.to(self.accelerator.device).requires_grad_(False).eval()
        self.collector = Collector(cfg, self.accelerator, self.state, self.prompts, self.reward)
        self.times = policy.timesteps(cfg.num_inference_steps)
        # A step without noise has no likelihood; Stable Diffusion's own last step has some.
        _, sigma = policy.path(torch.tensor([policy.end]))
        self.likely_steps = cfg.num_inference_steps - int(float(sigma) == 0)
        self.root, self.round = cfg.output / "trajectories", -1
        self.store: trajectories.Store

    def before_step(self) -> dict[str, float]:
        """Collect at the start of a round, from the weights of the checkpoint made then -> its rewards."""
        number, since = divmod(self.state.step, self.cfg.collect_every)
        if number != self.round:
            if since == 0:
                self._collect(number)
            if self.stopping:
                return {}
            folder = trajectories.round_folder(self.root, number)
            if self.round < 0:  # of the run before, if this one was resumed
                trajectories.check(folder)
            self.store, self.round = trajectories.open_store(folder), number
            self.scores = torch.from_numpy(self.store.scores)
        if since:
            return {}
        every = np.asarray(self.store.all_scores, dtype=np.float64)
        spread = float(every.std())
        # The error of the mean: paths of one prompt are alike, so at most one of each counts.
        error = spread / math.sqrt(len(every))
        return {"reward": float(every.mean()), "reward_std": spread, "reward_error": error}

    def _collect(self, number: int) -> None:
        """Store a round, unless that is done; the checkpoint it is a pure function of is written first."""
        main, folder = self.accelerator.is_main_process, trajectories.round_folder(self.root, number)
        if folder.is_dir():
            return
        self.save_once()
        filling = folder.with_name(f".{folder.name}")
        done = self.collector.fill(filling, number, stopping=lambda: self.stopping)
        self.accelerator.wait_for_everyone()
        if done and main:
            if self.round >= 0:
                del self.store  # Windows deletes no mapped file
            for old in self.root.glob("round-*"):
                shutil.rmtree(old)
            trajectories.seal(filling)
            filling.rename(folder)
        self.accelerator.wait_for_everyone()

    def batch(self, step: int, micro: int) -> Batch:
        """A random group and `compare` of its paths for each row, and the same random steps for all rows."""
        cfg, device = self.cfg, self.accelerator.device
        draws = [generator(CHOICE, cfg.seed, step, row) for row in self.rows(micro)]
        groups = torch.stack([torch.randint(cfg.collect_prompts, (), generator=draw) for draw in draws])
        paths = torch.stack([torch.randperm(cfg.keep, generator=draw)[: cfg.compare] for draw in draws])
        scores = self.scores[groups[:, None], paths]
        order = best_first(scores, torch.stack([torch.rand(cfg.compare, generator=draw) for draw in draws]))
        steps = draw_steps(cfg, self.likely_steps, step)
        where = groups[:, None, None], paths.gather(1, order)[..., None], steps[None, None]
        x_t, x_s = (self._states(where[0], where[1], where[2] + offset).to(device) for offset in (0, 1))
        tied = scores.amax(1) == scores.amin(1)
        weight = 1 - tied.float() if cfg.ties == "skip" else torch.ones(len(tied))
        cond = self.prompts.cond(self.collector.order(self.round)[groups])
        return Batch(
            x_t, x_s, self.times[steps].to(device), self.times[steps + 1].to(device), cond, weight.to(device)
        )

    def _states(self, groups: Tensor, paths: Tensor, steps: Tensor) -> Tensor:
        picked = np.asarray(self.store.states[groups.numpy(), paths.numpy(), steps.numpy()])
        return torch.tensor(picked, dtype=torch.float32)  # a copy: numpy aligns otherwise than torch

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Plackett-Luce over the compared paths' discounted, clipped log-ratios."""
        cfg = self.cfg
        log_probs = self._log_probs(batch)
        with self.policy.reference():
            reference = self._log_probs(batch)
        ratio = log_probs - reference  # (B, K, n)
        logits = trajectory_logits(ratio, temperature=cfg.temperature, clip=cfg.clip)
        size = ratio.detach().abs()
        return batch.weight * plackett_luce(logits), {
            "implicit_acc": wins(logits[:, 0] - logits[:, -1]),
            "margin": logits[:, 0] - logits[:, -1],
            "ratio": ratio,
            "ratio_size": size,
            "clipfrac": (size > cfg.clip).float(),
        }

    def _log_probs(self, batch: Batch) -> Tensor:
        """log p(x_s | x_t), mean over the latent, (B, K, n), from one forward of all rows."""
        B, K, n = batch.x_t.shape[:3]
        cond = {name: value.repeat_interleave(K * n, 0) for name, value in batch.cond.items()}
        t, s = batch.t.repeat(B * K), batch.s.repeat(B * K)
        p = self.policy.step(
            batch.x_t.flatten(0, 2),
            t,
            s,
            cond,
            kernel=self.collector.kernel,
            guidance_scale=self.cfg.guidance_scale,
        )
        return p.log_prob(batch.x_s.flatten(0, 2)).view(B, K, n)

    @property
    def trained_reward(self) -> Trained:
        """The reward that is trained, which the monitor must not take for held out."""
        return self.cfg.reward, self.reward

    def evaluate(self) -> dict[str, float]:
        """The mean reward of images of the held-out prompts, at the same seeds every time."""
        cfg = self.cfg
        return mean_reward(
            self.policy,
            self.reward,
            self.heldout,
            num_inference_steps=cfg.num_inference_steps,
            guidance_scale=cfg.guidance_scale,
            batch_size=cfg.rollout_batch,
        )

    def facts(self) -> Facts:
        """The prompts, how paths are sampled, the reward at the start, and the settings at this latent."""
        cfg, facts, fields = self.cfg, super().facts(), Config.model_fields
        path = f"{cfg.num_inference_steps} steps, guidance {cfg.guidance_scale:g}, {self.collector.kernel}"
        rounds = f"every {cfg.collect_every} steps {cfg.collect_prompts} prompts x {cfg.rollouts} paths"
        return replace(
            facts,
            unit="prompts",
            train=len(self.prompts.texts),
            heldout=len(self.heldout),
            more={"rounds": rounds, "sampling": path, "reward": cfg.reward, **facts.more},
            published=(
                Published("temperature", fields["temperature"].default, cfg.temperature, "strength"),
                Published("clip", fields["clip"].default, cfg.clip, "bound"),
            ),
            watched={"reward": None},
            levers={name: getattr(cfg, name) for name in LEVERS},
            start=self.start,
        )

    def start(self) -> str:
        """The mean reward of images of the weights at hand."""
        cfg = self.cfg
        return starting_reward(self.policy, self.reward, self.shown, cfg, batch_size=cfg.rollout_batch)

    def data_card(self) -> str:
        """The prompts and the reward, for the model card."""
        count = len(self.prompts.texts)
        return f"{count} prompts from {self.cfg.prompts}, images scored by {self.cfg.reward}"


def draw_steps(cfg: Config, likely_steps: int, step: int) -> Tensor:
    """The n step numbers of one update, 0 the noisiest, with probability proportional to gamma^number."""
    p = discount_probabilities(likely_steps, cfg.gamma)
    draw = generator(STEPS, cfg.seed, step)
    return torch.multinomial(p, cfg.timesteps, replacement=True, generator=draw)
