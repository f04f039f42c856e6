"""CLIPScore and plain CLIP similarity.

Hessel et al. 2021, "CLIPScore: A Reference-free Evaluation Metric for Image Captioning", eq. 1: 2.5 times the
cosine where it is positive, on ViT-B/32, of the caption after "A photo depicts ". What the text-to-image
literature calls CLIP score is the bare cosine, mostly of ViT-L/14 or CLIP-H.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rewards.preprocess import CLIP_224, Geometry
from rewards.towers.clip_towers import load_tower
from rewards.towers.tokens import Style
from rewards.towers.two_tower import Tower, TwoTower

NAMES: dict[str, dict[str, Any]] = {
    "clipscore": {
        "weights": "openai/clip-vit-base-patch32",
        "architecture": "ViT-B-32-quickgelu",
        "prefix": "A photo depicts ",
        "factor": 2.5,
        "floor": 0.0,
    },
    "clipscore-b": {"weights": "openai/clip-vit-base-patch32", "architecture": "ViT-B-32-quickgelu"},
    "clipscore-l": {"weights": "openai/clip-vit-large-patch14", "architecture": "ViT-L-14-quickgelu"},
    "clipscore-h": {"weights": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "architecture": "ViT-H-14"},
}
TABLE = {
    "clipscore": (
        'openai/clip-vit-base-patch32 | crop 224 | "A photo depicts " + 77 tokens | 2.5 max(cosine, 0) | '
        "yes | MIT"
    ),
    "clipscore-b, clipscore-l": (
        "openai/clip-vit-base-patch32, -large-patch14 | crop 224 | 77 tokens | cosine, [-1, 1] | yes | MIT"
    ),
    "clipscore-h": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K | crop 224 | 77 tokens | cosine | yes | MIT",
}


class ClipScore(TwoTower):
    """factor * cosine, in [-factor, factor], from `floor` upwards if there is one."""

    def __init__(
        self,
        tower: Tower,
        geometry: Geometry = CLIP_224,
        *,
        prefix: str = "",
        factor: float = 1.0,
        floor: float | None = None,
    ) -> None:
        super().__init__(tower, geometry)
        self.prefix, self.factor, self.floor = prefix, factor, floor

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """B prompts -> unit embeddings (B, D) of the prefix and the prompt."""
        return super().encode_text([self.prefix + prompt for prompt in prompts])

    def head(self, image: Tensor, text: Tensor | None) -> Tensor:
        """Unit embeddings (B, D) of images and prompts -> (B,)"""
        assert text is not None, "this scorer reads the prompt"
        cosine = (image * text).sum(-1)
        return self.factor * (cosine if self.floor is None else cosine.clamp(min=self.floor))


def build(
    weights: str | None = None,
    *,
    sha256: str | None = None,
    architecture: str | None = None,
    tokenizer: Style = "openai",
    dtype: str = "float32",
    prefix: str = "",
    factor: float = 1.0,
    floor: float | None = None,
    towers: dict[str, Tower] | None = None,
) -> ClipScore:
    """A CLIP of transformers or open_clip from a file, a folder or the Hub; see `load_tower`.

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
    return ClipScore(tower, Geometry(tower.size), prefix=prefix, factor=factor, floor=floor)
