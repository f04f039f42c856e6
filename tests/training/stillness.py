"""A latent reward of a user's: how small the latents are, whatever the prompt; no weights, no encoder."""

import torch
from torch import Tensor

from rewards.base import LatentReward


class Stillness(LatentReward):
    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def score(self, latents: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        assert t.dtype == torch.long, "a latent reward is promised whole times"
        self.times.append(float(t[0]))
        return -latents.square().mean((1, 2, 3))
