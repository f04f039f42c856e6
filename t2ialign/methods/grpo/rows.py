"""The rows of a round: each image at each of its noise levels, those of flat groups last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from t2ialign.diffusion.noise import generator, normal_rows, uniform_rows
from t2ialign.methods.grpo.rollouts import Sampler
from t2ialign.models.base import Cond

if TYPE_CHECKING:
    from t2ialign.methods.grpo.config import Config

ORDER, NOISE, LEVEL = 3, 4, 5
"""First part of a random key: a round's order, a row's noise, its noise level. The sampler has 0 to 2."""


@dataclass(frozen=True)
class Batch:
    """Rows: images at a noise level each."""

    x_t: Tensor
    """(B, C, h, w)"""
    t: Tensor
    """(B,)"""
    cond: Cond
    advantages: Tensor
    """(B,), 0 for an image of a flat group"""
    goal: Tensor
    """(B, C, h, w): the state x_s that was drawn from x_t, or the clean image x_0 that was noised to x_t"""
    s: Tensor
    """(B,) the less noisy times, where goal is x_s"""
    eps: Tensor
    """(B, C, h, w) the noise in x_t, where goal is x_0"""
    places: Tensor
    """(B,) the number of each row within the round"""
    live: bool
    """Whether any of its images is in a group with spread."""


class Rows:
    """One round as rows.

    states: (N, ..., C, h, w) of N images as `rollouts.Images` has them. advantages: (N,). levels: the rows of
    an image. An image without advantage is in a flat group.
    """

    def __init__(
        self, cfg: Config, sampler: Sampler, number: int, states: Tensor, advantages: Tensor, levels: int
    ) -> None:
        self.cfg, self.sampler, self.number, self.levels = cfg, sampler, number, levels
        self.states, self.texts = states, sampler.texts(number)
        self.advantages = advantages.clamp(-cfg.advantage_clip, cfg.advantage_clip)
        grouped = (advantages != 0).view(cfg.groups, -1).any(1)
        self.live = grouped.repeat_interleave(cfg.group_size)
        shuffled = torch.randperm(cfg.images, generator=generator(ORDER, cfg.seed, number))
        self.order = shuffled[self.live[shuffled].logical_not().long().argsort(stable=True)]

    @property
    def flat(self) -> float:
        """The share of groups without spread."""
        return 1 - float(self.live.float().mean())

    def batch(self, update: int, rows: Sequence[int]) -> Batch:
        """Some rows of one update, by their numbers in it; an update has an equal part of the images."""
        images, numbers = self.order[update :: self.cfg.updates], torch.tensor(rows)
        image, level = images[numbers // self.levels], numbers % self.levels
        sampler, device = self.sampler, self.sampler.policy.device
        texts = self.texts[image // self.cfg.group_size]
        more: dict[str, Any] = {
            "cond": sampler.prompts.cond(texts, sampler.size),
            "advantages": self.advantages[image].to(device),
            "places": image * self.levels + level,
            "live": bool(self.live[image].any()),
        }
        if self.cfg.loss == "ratio":
            step = sampler.steps(self.number).start + level
            t, s = (sampler.times[step + after].to(device) for after in (0, 1))
            x_t, x_s = (self.states[image, level + after].to(device) for after in (0, 1))
            return Batch(x_t=x_t, t=t, s=s, goal=x_s, eps=x_s, **more)
        places = zip(image.tolist(), level.tolist(), strict=True)
        keys = [(self.cfg.seed, self.number, *place) for place in places]
        t = sampler.times[self._steps(level, uniform_rows([(LEVEL, *key) for key in keys]))].to(device)
        x_0 = self.states[image, 0].to(device)
        eps = normal_rows(x_0.shape[1:], [(NOISE, *key) for key in keys]).to(device)
        return Batch(x_t=sampler.policy.renoise(x_0, eps, t), t=t, s=t, goal=x_0, eps=eps, **more)

    def _steps(self, level: Tensor, u: Tensor) -> Tensor:
        """A sampling step (B,) of each equal part of those that are trained; awm leaves out the first."""
        return ((level + u) * self.cfg.trained_steps / self.levels).long() + int(self.cfg.loss == "awm")
