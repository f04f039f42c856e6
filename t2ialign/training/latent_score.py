"""A latent reward as a reward of finished samples: their latents are scored as they are, undecoded."""

from __future__ import annotations

import torch
from torch import Tensor

from rewards.base import LatentReward
from rewards.latent.lrm import LRM
from rewards.latent.mmdit import MMDiTBackbone
from t2ialign.models.base import Policy

GRID = 20
"""The number of sampling steps whose timesteps `train lrm` draws from by default; the last is least noisy."""
MODELS = {
    "unet": "Stable Diffusion 1 or 2",
    "sdxl": "Stable Diffusion XL",
    "transformer": "a transformer such as Stable Diffusion 3",
}


class LatentScore:
    """Scores of sampled latents, with gradient, at the least noisy timestep that `train lrm` trains on.

    reward: on the policy's device. size: (H, W) of the images in pixels. Raises ValueError like
    `check_latents`.
    """

    def __init__(self, reward: LatentReward, policy: Policy, size: tuple[int, int]) -> None:
        check_latents(reward, policy)
        self.reward, self.device, self.shape = reward, policy.device, policy.latent_shape(*size)
        self.t = int(policy.timesteps(GRID, size)[-2].round())

    def __call__(self, latents: Tensor, prompts: list[str]) -> Tensor:
        """x_0 (B, C, h, w), B prompts -> (B,)."""
        t = torch.full((len(latents),), self.t, device=self.device)
        scores: Tensor = self.reward(latents, t, prompts)
        return scores

    def check(self, name: str, prompt: str) -> None:
        """Raises ValueError for a reward that does not score these latents, or scores without gradient."""
        latents = torch.zeros(1, *self.shape, device=self.device, requires_grad=True)
        try:
            scores = self(latents, [prompt])
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            shape, reason = "x".join(map(str, self.shape)), " ".join(str(error).split())
            raise ValueError(
                f"got reward {name}, which does not score latents of {shape} ({reason}); expected one of "
                "this model's latents; train it by t2ialign train lrm with this model"
            ) from error
        if not scores.requires_grad:
            raise ValueError(
                f"got reward {name}, whose scores have no gradient; expected them computed from the latents "
                "by torch; correct its method score, or train it by lpo, which takes any latent reward"
            )


def check_latents(reward: LatentReward, policy: Policy) -> None:
    """Raises ValueError for one of our latent rewards that was made of a model of other latents."""
    if not isinstance(reward, LRM):
        return
    made_of = "sdxl" if reward.backbone.text_is_projected else "unet"
    if isinstance(reward.backbone, MMDiTBackbone):
        made_of = "transformer"
    model = "sdxl" if policy.family == "sdxl" else policy.component
    if made_of != model:
        raise ValueError(
            f"got a latent reward of {MODELS[made_of]} for {MODELS.get(model, model)}; expected one of this "
            "model's latents; train it by t2ialign train lrm with this model"
        )
