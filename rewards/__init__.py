"""Image rewards for text-to-image alignment; usable alone: needs torch and never t2ialign."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rewards.declared import names
from rewards.loading import check, load, load_all

if TYPE_CHECKING:
    from rewards.base import LatentReward, Prepared, Reward
    from rewards.preprocess import Geometry
    from rewards.scores import Scores, score
    from rewards.together import score_all
    from rewards.towers.two_tower import Tower, TwoTower

__all__ = [
    "Geometry",
    "LatentReward",
    "Prepared",
    "Reward",
    "Scores",
    "Tower",
    "TwoTower",
    "check",
    "load",
    "load_all",
    "names",
    "score",
    "score_all",
]

_HOMES = {
    "Geometry": "preprocess",
    "LatentReward": "base",
    "Prepared": "base",
    "Reward": "base",
    "Scores": "scores",
    "Tower": "towers.two_tower",
    "TwoTower": "towers.two_tower",
    "score": "scores",
    "score_all": "together",
}


def __getattr__(name: str) -> Any:
    """The classes, imported when first asked for: `import rewards` alone must not cost an import of torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rewards' has no attribute {name!r}")
    return getattr(import_module(f"rewards.{_HOMES[name]}"), name)
