"""Differentiable rewards without weights: how red an image is, and two that are broken."""

import torch
from torch import Tensor

from rewards import Reward


class Redness(Reward):
    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


class NotANumber(Redness):
    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        scores = super().score(images, prompts)
        return torch.where(torch.arange(len(scores)) == 1, torch.nan, scores)


class WrongShape(Redness):
    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        return super().score(images, prompts)[:, None]


def build() -> Redness:
    return Redness()
