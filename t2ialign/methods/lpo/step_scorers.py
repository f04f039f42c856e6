"""Judges of the states x_s of a step: a latent reward directly, or a reward of images through x_0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from rewards import Reward
from rewards.base import LatentReward
from rewards.failures import check_finite
from rewards.latent.lrm import LRM
from t2ialign.diffusion.candidates import Step
from t2ialign.models.base import Cond
from t2ialign.training.prompts import Prompts

BATCH = 32
"""Prompts encoded at once."""

Judge = Callable[[Step], Tensor]
"""The candidates (B, K, C, h, w) of a step of certain prompts -> (B, K)."""


class StepScorer(Protocol):
    """Scores states of the prompts it was made with."""

    def judge(self, numbers: Tensor, cond: Cond) -> Judge:
        """Return the judge for paths of the prompts `numbers` (B,), encoded as `cond`, moved there once."""
        ...


class LatentScorer:
    """Our latent reward; every prompt is encoded once, and K candidates of B paths are one forward."""

    def __init__(self, reward: LRM, texts: list[str], device: torch.device) -> None:
        self.reward, self.device = reward.to(device).requires_grad_(False).eval(), device
        unique = list(dict.fromkeys(texts))
        row = {text: i for i, text in enumerate(unique)}
        self._rows = torch.tensor([row[text] for text in texts])
        with torch.no_grad():
            parts = [reward.encode_prompts(unique[i : i + BATCH]) for i in range(0, len(unique), BATCH)]
        names = [name for name in parts[0] if not name.startswith("empty_")]
        self._text = {name: torch.cat([part[name].cpu() for part in parts]) for name in names}
        # The empty prompt of guided features is one row for all; as large as any, it is kept once.
        self._empty = {name: row[:1] for name, row in parts[0].items() if name not in names}

    def judge(self, numbers: Tensor, cond: Cond) -> Judge:
        """Judge by the *current* t, as released: a reward that is told t = 0 throughout is destructive."""
        rows = self._rows[numbers]
        encoded = {name: value[rows].to(self.device) for name, value in self._text.items()}
        encoded |= {name: row.expand(len(rows), *row.shape[1:]) for name, row in self._empty.items()}

        @torch.no_grad()
        def scores(step: Step) -> Tensor:
            B, K = step.candidates.shape[:2]
            text = {name: value.repeat_interleave(K, 0) for name, value in encoded.items()}
            given = self.reward.score_encoded(step.candidates.flatten(0, 1), step.t.expand(B * K), text)
            return given.float().view(B, K)

        return scores


class PlainLatentScorer:
    """Any latent reward, by what calling it gives; it encodes its prompts at every step."""

    def __init__(self, reward: LatentReward, texts: list[str], device: torch.device) -> None:
        self.reward, self.texts = reward.to(device).requires_grad_(False).eval(), texts

    def judge(self, numbers: Tensor, cond: Cond) -> Judge:
        """K candidates of B paths are one call. A latent reward takes whole times; a flow's are rounded."""
        texts = [self.texts[i] for i in numbers.tolist()]

        @torch.no_grad()
        def scores(step: Step) -> Tensor:
            B, K = step.candidates.shape[:2]
            t, prompts = step.t.round().long().expand(B * K), [text for text in texts for _ in range(K)]
            given = self.reward(step.candidates.flatten(0, 1), t, prompts).float()
            return check_finite(type(self.reward).__name__, given, prompts).view(B, K)

        return scores


class PixelScorer:
    """A reward of images on the x_0 that one more step predicts from each state (SPO)."""

    def __init__(self, reward: Reward, prompts: Prompts, *, guidance_scale: float) -> None:
        self.policy, self.texts, self.guidance_scale = prompts.policy, prompts.texts, guidance_scale
        self.reward = reward.to(self.policy.device).requires_grad_(False).eval()

    def judge(self, numbers: Tensor, cond: Cond) -> Judge:
        """K forwards of network and decoder a path; the last step's states are decoded as they are."""
        texts = [self.texts[i] for i in numbers.tolist()]

        @torch.no_grad()
        def scores(step: Step) -> Tensor:
            B, K = step.candidates.shape[:2]
            x, s = step.candidates.flatten(0, 1), step.s.expand(B * K)
            if float(step.s) != self.policy.end:
                rows = {name: value.repeat_interleave(K, 0) for name, value in cond.items()}
                x = self.policy.posterior_mean(self.policy.guided(x, s, rows, self.guidance_scale), x, s)
            prompts = [text for text in texts for _ in range(K)]
            made = self.reward(self.policy.decode(x), prompts).float()
            return check_finite(type(self.reward).__name__, made, prompts).view(B, K)

        return scores
