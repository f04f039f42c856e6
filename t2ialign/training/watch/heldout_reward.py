"""The mean reward of a few images at fixed prompts and seeds, for trainers that climb a reward."""

from __future__ import annotations

from typing import Protocol

import torch

from rewards import Reward
from t2ialign.models.base import Policy
from t2ialign.models.generate import generate
from t2ialign.progress import Progress
from t2ialign.training.latent_score import LatentScore

IMAGES = 8
"""The number of images of the untrained weights whose mean reward is printed under the plan."""


@torch.no_grad()
def mean_reward(
    policy: Policy,
    reward: Reward | LatentScore,
    prompts: list[str],
    *,
    num_inference_steps: int,
    guidance_scale: float,
    batch_size: int,
) -> dict[str, float]:
    """{"heldout/reward": mean} of an image of each prompt, seeds 0 .. N - 1; {} without prompts.

    Where the reward is a `LatentScore`, latents are scored and no image is decoded.
    """
    if not prompts:
        return {}
    with Progress(total=len(prompts), desc="held-out images", unit="image", delay=3) as bar:
        images = generate(
            policy,
            prompts,
            range(len(prompts)),
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            batch_size=batch_size,
            decode=not isinstance(reward, LatentScore),
            progress=bar.update,
        )
    scores = [
        reward(images[i : i + batch_size].to(policy.device), prompts[i : i + batch_size])
        for i in range(0, len(images), batch_size)
    ]
    return {"heldout/reward": float(torch.cat(scores).mean())}


class Climbing(Protocol):
    """The settings that are read here, of a trainer that climbs a reward."""

    reward: str
    num_inference_steps: int
    guidance_scale: float


def starting_reward(
    policy: Policy, reward: Reward | LatentScore, prompts: list[str], cfg: Climbing, *, batch_size: int
) -> str:
    """A line with the mean reward of a few samples of the first prompts, sampled as in training.

    batch_size: images that training too has in memory at once.
    """
    few = [prompts[i % len(prompts)] for i in range(IMAGES)]
    sampling = {"num_inference_steps": cfg.num_inference_steps, "batch_size": min(batch_size, IMAGES)}
    mean = mean_reward(policy, reward, few, guidance_scale=cfg.guidance_scale, **sampling)["heldout/reward"]
    what = "latents" if isinstance(reward, LatentScore) else "images"
    return (
        f"mean {cfg.reward} before training {mean:.4g}, of {IMAGES} {what} of "
        f"{min(len(prompts), IMAGES)} prompts at guidance {cfg.guidance_scale:g}"
    )
