"""Rewards that users hand over as objects, checked before anything is done with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rewards.base import LatentReward, Reward


def of_images(reward: object) -> Reward:
    """The reward as it is. Raises ValueError, on one line, for anything but a reward of images."""
    from rewards.base import LatentReward, Reward

    if isinstance(reward, LatentReward):
        raise ValueError(
            f"got a {type(reward).__name__}, which scores noisy latents; expected a reward of images; train "
            "lpo takes it"
        )
    if not isinstance(reward, Reward):
        raise ValueError(_not_one(reward))
    return reward


def of_any_kind(reward: object) -> Reward | LatentReward:
    """The reward as it is. Raises ValueError, on one line, for what is no reward."""
    from rewards.base import LatentReward, Reward

    if not isinstance(reward, Reward | LatentReward):
        raise ValueError(_not_one(reward))
    return reward


def _not_one(reward: object) -> str:
    if isinstance(reward, type):
        return f"got the class {reward.__name__} as a reward; expected an object; pass {reward.__name__}()"
    what = "call it in the method score(images, prompts) of such a class" if callable(reward) else "pass one"
    return (
        f"got a reward of type {type(reward).__name__}; expected a name of rewards.names(), or an object of "
        f"a class derived from rewards.Reward; {what}"
    )
