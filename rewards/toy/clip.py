"""The toy world's CLIP scores: two tiny CLIPs of other seed and depth, one to train on, one to judge.

They have the weaknesses of the real thing (counts and relations barely move them), which is their use here.
"""

from __future__ import annotations

from pathlib import Path

from rewards.assets import folder
from rewards.preprocess import Geometry
from rewards.scorers.clip import ClipScore
from rewards.towers.clip_towers import ClipTower, load_tower
from rewards.towers.two_tower import Tower

NAMES: dict[str, dict[str, str]] = {
    "toy-clip": {"path": "toy-clip"},
    "toy-clip-b": {"path": "toy-clip-b"},
}
TABLE = {
    "toy-clip, toy-clip-b": ("in the package | squashed to 32 x 32 | 32 tokens | cosine | yes | Apache-2.0"),
}


class ToyClip(ClipScore):
    """Cosine between the embeddings of image and prompt, in [-1, 1]; differentiable in the image."""

    def __init__(self, tower: ClipTower) -> None:
        """Pixels are squashed to the tower's size and mapped to [-1, 1]."""
        half = (0.5, 0.5, 0.5)
        super().__init__(tower, Geometry(tower.size, "squash", mean=half, std=half, source="float"))


def build(path: str = "toy-clip", *, towers: dict[str, Tower] | None = None) -> ToyClip:
    """A tiny CLIP from a folder, or an embedded one by its name."""
    source = Path(path) if Path(path).is_dir() else folder(path)
    return ToyClip(load_tower(str(source), towers=towers))
