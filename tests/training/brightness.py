"""A reward without gradients or weights: the mean pixel."""

import torch
from torch import Tensor

from rewards import Reward


class Brightness(Reward):
    differentiable = False

    @torch.no_grad()
    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        return images.mean((1, 2, 3))


def build() -> Brightness:
    return Brightness()
