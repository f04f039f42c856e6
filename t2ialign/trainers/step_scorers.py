"""Who judges siblings x_s of one step: a latent reward at once, or a reward of images through x_0."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from rewards import Reward
from rewards.latent import LRM
from t2ialign.diffusion.schedule import END
from t2ialign.diffusion.siblings import Step
from t2ialign.models.base import Cond, Policy

BATCH = 32
"""Prompts encoded at once."""


class StepScorer(Protocol):
    """Scores for the siblings of one step of B paths."""

    def score(self, step: Step, numbers: Tensor, cond: Cond) -> Tensor:
        """Siblings (B, K, C, h, w) of the prompts `numbers` (B,), encoded as `cond` -> (B, K)."""
        ...


class LatentScorer:
    """A latent reward; every prompt is encoded once, and K siblings of B paths are one forward."""

    def __init__(self, reward: LRM, texts: list[str], device: torch.device) -> None:
        self.reward = reward.to(device).requires_grad_(False).eval()
        unique = list(dict.fromkeys(texts))
        row = {text: i for i, text in enumerate(unique)}
        self._rows = torch.tensor([row[text] for text in texts])
        with torch.no_grad():
            parts = [reward.encode_prompts(unique[i : i + BATCH]) for i in range(0, len(unique), BATCH)]
        self._text = {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
        self.device = device

    @torch.no_grad()
    def score(self, step: Step, numbers: Tensor, cond: Cond) -> Tensor:
        """At the *current* t, as released: a reward that is told t = 0 throughout is destructive."""
        B, K = step.siblings.shape[:2]
        rows = self._rows[numbers.cpu()].repeat_interleave(K)
        text = {name: value[rows].to(self.device) for name, value in self._text.items()}
        scores = self.reward.score_encoded(step.siblings.flatten(0, 1), step.t.expand(B * K), text)
        return scores.float().view(B, K)


class PixelScorer:
    """A reward of images on the x_0 that one more step predicts from each sibling (SPO)."""

    def __init__(self, reward: Reward, policy: Policy, texts: list[str], *, guidance: float) -> None:
        self.reward = reward.to(policy.device).requires_grad_(False).eval()
        self.policy, self.texts, self.guidance = policy, texts, guidance

    @torch.no_grad()
    def score(self, step: Step, numbers: Tensor, cond: Cond) -> Tensor:
        """K forwards of network and decoder a path; the last step's siblings are decoded as they are."""
        B, K = step.siblings.shape[:2]
        x, s = step.siblings.flatten(0, 1), step.s.expand(B * K)
        if int(step.s) != END:
            rows = {name: value.repeat_interleave(K, 0) for name, value in cond.items()}
            x = self.policy.posterior_mean(self.policy.guided(x, s, rows, self.guidance), x, s)
        prompts = [self.texts[i] for i in numbers.tolist() for _ in range(K)]
        return self.reward(self.policy.decode(x), prompts).float().view(B, K)
