"""A latent reward as a reward of images, which back-propagation and scoring of files take."""

from __future__ import annotations

import torch
from torch import Tensor

from rewards import Reward
from rewards.base import LatentReward
from t2ialign.models.load import load_policy

LEAST_NOISE = 1
"""The timestep at which a latent reward is most often right."""


class EncodedLatent(Reward):
    """The score of an image's latent, by the toy model's own VAE and as if noised to `LEAST_NOISE`."""

    def __init__(self, reward: LatentReward) -> None:
        super().__init__()
        self.reward, self.vae = reward, load_policy("toy").latents.vae

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, 32, 32) in [0, 1], B prompts -> (B,), differentiable."""
        latents = self.vae.encode(2 * images - 1).latent_dist.mean * self.vae.config.scaling_factor
        t = torch.full((len(images),), LEAST_NOISE, device=images.device)
        scores: Tensor = self.reward(latents, t, prompts)
        return scores
