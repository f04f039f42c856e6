"""A PAL head as a reward: on the tower that it was trained on, and as a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from rewards import tensor_files
from rewards.base import Reward
from rewards.foreign import reading
from rewards.preprocess import Geometry
from rewards.scorers.pal import Pal, PalA, PalB
from rewards.towers.two_tower import Tower, TwoTower


class PalReward(TwoTower):
    """A PAL head as a reward, for one fixed mixture (K,) of its prototypes; range of the head.

    The mixture is a voter's, from `fit_user`, or by default the population's.
    """

    def __init__(self, tower: Tower, geometry: Geometry, pal: Pal, mixture: Tensor | None = None) -> None:
        super().__init__(tower, geometry)
        mixture = pal.population() if mixture is None else mixture.detach().to(pal.logits)
        shares = mixture.shape == pal.logits.shape[1:] and bool((mixture >= 0).all())
        if not shares or abs(float(mixture.sum()) - 1) > 1e-4:
            raise ValueError(
                f"got mixture {mixture.tolist()}; expected {pal.logits.shape[1]} shares that add to 1; "
                "take one from fit_user"
            )
        self.pal = pal
        self.register_buffer("mixture", mixture)
        self.mixture: Tensor

    def head(self, image: Tensor, text: Tensor | None) -> Tensor:
        """Unit embeddings (B, D) -> the mixture's reward (B,)"""
        return self.pal.reward(image, text, self.mixture)


class PalImageReward(PalReward):
    """PAL-A as a reward: the prompt plays no part and is not encoded."""

    needs_text: ClassVar[bool] = False


def as_reward(base: Reward, pal: Pal, mixture: Tensor | None = None) -> PalReward:
    """A head as a reward on the tower it was trained on. Raises ValueError if `base` has none."""
    if not isinstance(base, TwoTower):
        raise ValueError(f"got {type(base).__name__}; expected a two-tower scorer, such as CLIPScore's")
    kind = PalImageReward if isinstance(pal, PalA) else PalReward
    return kind(base.tower, base.geometry, pal, mixture)


def save(pal: Pal, path: str | Path) -> None:
    """Write a head and what it takes to build it again to one safetensors file."""
    config: dict[str, object] = {"max_norm": pal.max_norm}
    if isinstance(pal, PalA):
        config |= {"kind": "a", "form": pal.form}
    tensor_files.write(pal.state_dict(), path, {"pal": json.dumps({"kind": "b", **config})})


def restore(path: str | Path) -> Pal:
    """A head that `save` wrote, in eval mode. Raises ValueError for a file that it did not write."""
    with reading(path, "a file of rewards.scorers.pal_reward.save"):
        return _restored(path)


def _restored(path: str | Path) -> Pal:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    if "pal" not in metadata:
        raise ValueError(f"got {path} without a PAL head; expected a file of pal_reward.save; check it")
    config = json.loads(metadata["pal"])
    kind, (users, prototypes) = config.pop("kind"), weights["logits"].shape
    width, dim = weights["f.layers.0.weight"].shape
    make: type[PalA] | type[PalB] = PalA if kind == "a" else PalB
    pal = make(dim, users, prototypes=prototypes, width=width, **config)
    pal.load_state_dict(weights)
    return pal.eval()


def build(
    base: str = "",
    weights: str | Path = "",
    mixture: Sequence[float] | None = None,
    *,
    towers: dict[str, Any] | None = None,
    **options: Any,
) -> PalReward:
    """A saved head on the tower of another reward, which `rewards.load` takes by the name of this module.

    mixture: K shares, the population's by default; options go to the base. Raises ValueError without base
    or weights.
    """
    from rewards import load

    if not base or not weights:
        raise ValueError("got no base or no weights; expected a two-tower reward and a head; pass both")
    shares = None if mixture is None else torch.tensor(list(mixture))
    return as_reward(load(base, towers=towers, **options), restore(weights), shares)
