"""Which rewards score, by name or loaded, with what settings and on which device."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from t2ialign.io import naming
from t2ialign.scoring import output as tables
from t2ialign.scoring.budget import MAX_BATCH_PIXELS, check_max_batch_pixels

if TYPE_CHECKING:
    import torch

    from rewards import Reward

    Rewards = str | Reward | Iterable[str | Reward] | Mapping[str, Reward]


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """The rewards that score, and how many images at a time. Raises ValueError for a number out of range."""

    rewards: Mapping[str, Reward | None]
    """Rewards by name, in order; None for those that are loaded when they are needed."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    batch_size: int = 64
    max_batch_pixels: int = MAX_BATCH_PIXELS
    workers: int | None = None
    device: str | None = None
    precision: str = "fp32"
    ray: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("workers", 0), ("ray", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"got {naming.given(name, value)}; expected at least {least}; change it")
        check_max_batch_pixels(self.max_batch_pixels)
        if not self.rewards:
            raise ValueError(
                f"got no name in {naming.name('rewards')}; expected at least one, such as clipscore; add it"
            )
        if self.ray and any(reward is not None for reward in self.rewards.values()):
            raise ValueError("got ray for a loaded reward; expected rewards by name; name them")

    def check(self) -> None:
        """Raises ValueError for all that can be known before a reward is loaded."""
        check_all([name for name, reward in self.rewards.items() if reward is None], self.options)
        tables.schema(list(self.rewards))

    def load(self) -> dict[str, Reward]:
        """The rewards, loaded where they are named."""
        return load(self.rewards, self.options)


def rewards_of(rewards: Rewards) -> dict[str, Reward | None]:
    """Rewards in any form -> those that are loaded by name, and None for those that are named.

    Raises ValueError for what is no reward of images, and for two objects of one class without names.
    """
    named: dict[str, Reward | None] = {}
    for name, reward in listed(rewards):
        if name in named and reward is not None:
            raise ValueError(
                f"got two rewards called {name}; expected a name each; pass them as a dictionary by name"
            )
        named[name] = reward
    return named


def listed(rewards: Rewards) -> list[tuple[str, Reward | None]]:
    """The same in order, a name that is there twice included. Raises ValueError for no reward of images."""
    from rewards.loading import of_images

    if isinstance(rewards, Mapping):
        return [(name, of_images(reward)) for name, reward in rewards.items()]
    several = [rewards] if isinstance(rewards, str) or not isinstance(rewards, Iterable) else list(rewards)
    return [(one, None) if isinstance(one, str) else (type(of_images(one)).__name__, one) for one in several]


def load(
    rewards: Mapping[str, Reward | None], options: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Reward]:
    """Those that are loaded as they are, and the others by their names with their options."""
    from rewards import load_all

    named = load_all([name for name, reward in rewards.items() if reward is None], options)
    return {name: reward or named[name] for name, reward in rewards.items()}


def check_all(names: Iterable[str], options: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises ValueError as `rewards.check` does for any of the names, before the first of them is loaded."""
    import rewards

    for name in names:
        rewards.check(name, **options.get(name, {}))


def device_of(name: str | None) -> torch.device:
    """Where rewards are scored: a GPU if there is one. Raises ValueError for one that is not there."""
    import torch

    from rewards.device import default_device

    usual = default_device()
    if usual.type == "cuda":
        usual = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    try:
        device = torch.device(name or usual)
    except RuntimeError as error:
        raise ValueError(
            f"got {naming.given('device', name)}; expected cpu, cuda, cuda:1 or mps; change it"
        ) from error
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, True):
        raise ValueError(
            f"got {naming.given('device', device)} on a machine without it; expected cpu; change it"
        )
    return device
