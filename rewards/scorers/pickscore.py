"""PickScore: CLIP-H fine-tuned on half a million choices of users.

Kirstain et al. 2023, "Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image Generation", eq. 1.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rewards.preprocess import CLIP_224_FLOOR, Geometry
from rewards.scorers.clip import ClipScore
from rewards.towers.clip_towers import ClipTower, load_tower
from rewards.towers.tokens import Style
from rewards.towers.two_tower import Tower

NAMES: dict[str, dict[str, Any]] = {"pickscore": {"weights": "yuvalkirstain/PickScore_v1"}}
TABLE = {
    "pickscore": (
        "yuvalkirstain/PickScore_v1 (CLIP-H) | crop 224, odd margins as in transformers | 77 tokens | "
        "exp(scale) cosine, mostly 18 to 23 | yes | MIT (code)"
    ),
}


class PickScore(ClipScore):
    """exp(logit_scale) * cosine, mostly 18 to 23; a softmax over images of one prompt gives choice odds."""

    def __init__(self, tower: ClipTower, geometry: Geometry = CLIP_224_FLOOR) -> None:
        super().__init__(tower, geometry)

    def head(self, image: Tensor, text: Tensor | None) -> Tensor:
        """Unit embeddings (B, D) of images and prompts -> (B,)"""
        assert isinstance(self.tower, ClipTower), "the constructor takes no other"
        return self.tower.logit_scale.to(image.dtype).exp() * super().head(image, text)


def build(
    weights: str | None = None,
    *,
    sha256: str | None = None,
    architecture: str | None = None,
    tokenizer: Style = "transformers",
    dtype: str = "float32",
    towers: dict[str, Tower] | None = None,
) -> PickScore:
    """A checkpoint of transformers or open_clip from a file, a folder or the Hub; see `load_tower`.

    Raises ValueError without weights.
    """
    tower = load_tower(
        weights,
        architecture=architecture,
        sha256=sha256,
        tokenizer=tokenizer,
        dtype=dtype,
        towers=towers,
    )
    return PickScore(tower, Geometry(tower.size, middle="floor", rgb="first"))
