"""Reward back-propagation: the reward's gradient through the decoder and some of the sampling steps.

A latent reward scores the sample as it is, and there is no decoder in the graph.

One engine for AlignProp (Prabhudesai et al. 2023), DRaFT, DRaFT-K and DRaFT-LV (Clark et al. 2024), ReFL (Xu
et al. 2023) and DRTune (Wu et al. 2024): `preset` names one, and which steps record is `record`. Adam hides
the scale of the gradient, which differs a thousandfold between values of K: neither the learning rate nor
`max_grad_norm` carries over from one to another.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

import rewards
from rewards import Reward
from rewards.base import LatentReward
from rewards.failures import check_finite
from rewards.loading import of_any_kind
from t2ialign.data.prompts import read_prompts
from t2ialign.diffusion.backprop import Plan, differentiable_sample, draw_plan, low_variance_sample
from t2ialign.diffusion.kernels import ODE, Kernel
from t2ialign.diffusion.noise import Key, generator, normal_rows
from t2ialign.diffusion.sampler import sample
from t2ialign.evaluation.panel import Trained
from t2ialign.methods.backprop.check import check
from t2ialign.methods.backprop.config import Config
from t2ialign.models.base import Cond
from t2ialign.objectives.preference import mean_square
from t2ialign.training import base
from t2ialign.training.facts import Facts
from t2ialign.training.latent_score import LatentScore
from t2ialign.training.methods import taking_any_reward
from t2ialign.training.prompts import Prompts
from t2ialign.training.watch.heldout_reward import IMAGES, mean_reward, starting_reward

PATH, PLAN, PROMPT, RENOISE = range(4)
"""First part of a random key: a path's noise, which steps record, the order of the prompts, DRaFT-LV's."""
START = -1
"""Step number of the first noise of a path."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Rows of one micro-step: which prompts, and the keys of their random numbers."""

    numbers: Tensor
    """(B,) long, into the prompts"""
    cond: Cond
    """B prompts"""
    keys: Sequence[Key]
    """B keys"""
    plan: Plan


class Trainer(base.Trainer[Config, Batch]):
    """Samples with gradient, decodes for a reward of images, scores, and climbs the reward.

    reward: the loaded reward, which is then `cfg.reward`; else it is loaded by that name.
    """

    method = "backprop"
    times: Tensor
    decodes = True
    wraps = False

    def __init__(
        self, cfg: Config, *, policy: Any = None, reward: Reward | LatentReward | None = None
    ) -> None:
        check(cfg)
        self._given = None if reward is None else of_any_kind(reward)
        self.supplied |= {"reward"} if reward is not None else frozenset()
        super().__init__(cfg, policy=policy)

    def setup(self) -> None:
        """Encode every prompt once, load the reward. Raises ValueError for a reward without gradients."""
        cfg, policy, texts = self.cfg, self.policy, read_prompts(self.cfg.prompts)
        self.size = (cfg.height or policy.native_size[0], cfg.width or policy.native_size[1])
        self.reward = self._load_reward(texts[0])
        self.prompts = Prompts(policy, texts)
        self.heldout = read_prompts(cfg.heldout_prompts) if cfg.heldout_prompts else []
        self.shown = (self.validation_prompts or self.prompts.texts)[:IMAGES]
        self.keep_prompts += [*self.heldout, *self.shown]
        self.kernel = Kernel(cfg.kernel, cfg.eta)
        self.kernel.check(policy.kind)
        self.times = policy.without_empty_end(policy.timesteps(cfg.num_inference_steps, self.size))
        self.plan(0)  # whose rule may not fit the steps that are left
        self.shape = policy.latent_shape(*self.size)
        self._order = lru_cache(maxsize=2)(self._shuffled)
        if cfg.checkpoint_steps and not self.latent:
            policy.checkpoint_decoder()

    def _load_reward(self, prompt: str) -> Reward | LatentScore:
        """The reward of images, or the latent one as it scores samples, once it has gradients."""
        name, device = self.cfg.reward, self.accelerator.device
        reward = self._given or rewards.load(name, **self.cfg.reward_options)
        if isinstance(reward, Reward):
            check_differentiable(name, reward)
        reward = reward.to(device).requires_grad_(False).eval()
        if isinstance(reward, Reward):
            return reward
        score = LatentScore(reward, self.policy, self.size)
        score.check(name, prompt)
        return score

    @property
    def latent(self) -> bool:
        """Whether the reward scores latents, so that nothing is decoded for it."""
        return isinstance(self.reward, LatentScore)

    def batch(self, step: int, micro: int) -> Batch:
        """Every prompt comes once before any comes again; all rows of an update share one plan."""
        cfg, size = self.cfg, len(self.prompts.texts)
        places = [divmod(step * self.state.global_batch + row, size) for row in self.rows(micro)]
        numbers = torch.stack([self._order(epoch)[place] for epoch, place in places])
        keys = [(cfg.seed, step, row) for row in self.rows(micro)]
        return Batch(numbers, self.prompts.cond(numbers, self.size), keys, self.plan(step))

    def plan(self, step: int) -> Plan:
        """The steps that record in the update number `step`."""
        cfg = self.cfg
        return draw_plan(
            cfg.record,
            len(self.times) - 1,
            k=cfg.k,
            early_stop=cfg.early_stop,
            posterior=cfg.reward_input == "posterior",
            detach_input=cfg.detach_input,
            detach_latent=cfg.detach_latent,
            generator=generator(PLAN, cfg.seed, step),
        )

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The reward's loss of the decoded images, or of the latents for a latent reward, and the penalty."""
        cfg = self.cfg
        x_0, costs = self.sample(batch)
        samples = x_0 if self.latent else self.policy.decode(x_0)
        texts = [self.prompts.texts[i] for i in batch.numbers.tolist()] * (len(x_0) // len(batch.numbers))
        scores = self.score(samples, texts)
        if cfg.loss == "hinge" and bool((scores.detach() >= (cfg.target or 0)).all()):
            log.warning(
                "every score of a batch is beyond target=%g, where the hinge has no gradient; raise it",
                cfg.target,
            )
        losses = cfg.loss_scale * reward_loss(scores, cfg.loss, cfg.target) + cfg.penalty_weight * costs
        metrics = {
            "reward": scores,
            "recorded_steps": torch.tensor(float(sum(batch.plan.recorded)), device=losses.device),
        }
        if not self.latent:
            metrics["saturated"] = ((samples <= 0) | (samples >= 1)).float()  # clamped: no gradient passes
        return losses, metrics | ({"penalty": costs} if cfg.penalty != "none" else {})

    def sample(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """x_0 (B, C, h, w) with its graph, n B rows for DRaFT-LV, and the penalties (rows,)."""
        cfg, policy, device = self.cfg, self.policy, self.accelerator.device

        def noise(step: int) -> Tensor:
            return normal_rows(self.shape, [(PATH, *key, step) for key in batch.keys])

        x_T, penalty = noise(START).to(device), self.penalty if cfg.penalty != "none" else None
        if cfg.lv_samples:
            keys = [(RENOISE, *key, n) for n in range(cfg.lv_samples) for key in batch.keys]
            eps = normal_rows(self.shape, keys).to(device).unflatten(0, (cfg.lv_samples, -1))
            x_0 = sample(policy, batch.cond, x_T, self.times, kernel=ODE, guidance_scale=cfg.guidance_scale)
            return low_variance_sample(
                policy,
                batch.cond,
                x_0,
                self.times,
                eps,
                guidance_scale=cfg.guidance_scale,
                recompute=cfg.checkpoint_steps,
                penalty=penalty,
            )
        return differentiable_sample(
            policy,
            batch.cond,
            x_T,
            self.times,
            batch.plan,
            kernel=self.kernel,
            guidance_scale=cfg.guidance_scale,
            noise=noise if self.kernel.noisy else None,
            recompute=cfg.checkpoint_steps,
            penalty=penalty,
        )

    def penalty(self, out: Tensor, frozen: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The distance of a step from the reference's at the same x_t, (B,): mean over the latent."""
        if self.cfg.penalty == "l2":
            return mean_square(out - frozen)
        now, before = (self.policy.transition(o, x_t, t, s, kernel=self.kernel) for o in (out, frozen))
        certain = now.std == 0  # a step without noise has no density
        distance = (now.mean - before.mean) / torch.where(certain, 1.0, now.std)
        return torch.where(certain.flatten(), 0.0, mean_square(distance) / 2)

    def score(self, samples: Tensor, prompts: list[str]) -> Tensor:
        """(B,) fp32, with gradient. Raises ValueError for images outside [0, 1] or a broken score."""
        half = self.cfg.reward_precision == "bf16"
        with torch.autocast(samples.device.type, torch.bfloat16) if half else nullcontext():
            scores: Tensor = self.reward(samples, prompts).float()
        if samples.requires_grad and not scores.requires_grad:
            raise ValueError(
                f"got scores without a gradient from {self.cfg.reward}, which says that it has one; expected "
                "them computed from the images by torch; set differentiable = False in it and use train dense"
            )
        return check_finite(self.cfg.reward, scores, prompts)

    @property
    def trained_reward(self) -> Trained | None:
        """The reward that is trained, for the monitor; a latent reward cannot score its images."""
        return None if isinstance(self.reward, LatentScore) else (self.cfg.reward, self.reward)

    def evaluate(self) -> dict[str, float]:
        """The mean reward of images of the held-out prompts, at the same seeds every time."""
        cfg = self.cfg
        return mean_reward(
            self.policy,
            self.reward,
            self.heldout,
            num_inference_steps=cfg.num_inference_steps,
            guidance_scale=cfg.guidance_scale,
            batch_size=max(16, cfg.batch_size),
        )

    def facts(self) -> Facts:
        """The prompts, how images are sampled, and the reward at the start."""
        cfg, facts, prompts = self.cfg, super().facts(), len(self.prompts.texts)
        height, width = self.size
        path = f"{cfg.num_inference_steps} steps, guidance {cfg.guidance_scale:g}, {self.kernel}"
        path += f", {height}x{width} pixels"
        return replace(
            facts,
            unit="prompts",
            train=prompts,
            heldout=len(self.heldout),
            epoch=prompts,
            more={"sampling": path, "reward": cfg.reward, **facts.more},
            watched={"reward": None},
            levers={
                "lr": cfg.lr,
                "lora_rank": cfg.lora_rank,
                "guidance_scale": cfg.guidance_scale,
                "k": cfg.k,
            },
            start=self.start,
        )

    def start(self) -> str:
        """The mean reward of images of the weights at hand."""
        cfg = self.cfg
        return starting_reward(self.policy, self.reward, self.shown, cfg, batch_size=cfg.batch_size)

    def data_card(self) -> str:
        """The prompts and the reward, for the model card."""
        count = len(self.prompts.texts)
        samples = "latents" if self.latent else "images"
        return f"{count} prompts from {self.cfg.prompts}, {samples} scored by {self.cfg.reward}"

    def _shuffled(self, epoch: int) -> Tensor:
        draw = generator(PROMPT, self.cfg.seed, epoch)
        return torch.randperm(len(self.prompts.texts), generator=draw)


def reward_loss(scores: Tensor, form: str, target: float | None) -> Tensor:
    """Scores (B,) -> losses (B,): -R, |R - target| or max(0, target - R)."""
    if form == "maximise":
        return -scores
    assert target is not None, "checked with the settings"
    return (scores - target).abs() if form == "target" else (target - scores).clamp_min(0)


def check_differentiable(name: str, reward: Reward) -> None:
    """Raises ValueError for a reward without gradients, naming the trainers that take any."""
    if not reward.differentiable:
        raise ValueError(
            f"got reward {name}, whose scores have no gradient; expected one that has; choose another, or "
            f"train it by {', '.join(taking_any_reward())}, which take any reward"
        )
