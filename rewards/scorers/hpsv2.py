"""HPSv2 and HPSv2.1: CLIP-H fine-tuned on rankings of generated images.

Wu et al. 2023, "Human Preference Score v2: A Solid Benchmark for Evaluating Human Preferences of
Text-to-Image Synthesis". Images are not cut: the longest side is scaled to 224 and black fills the rest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rewards.preprocess import HPS_224, Geometry
from rewards.scorers.clip import ClipScore
from rewards.towers.clip_towers import ClipTower, load_tower
from rewards.towers.tokens import Style
from rewards.towers.two_tower import Tower

NAMES: dict[str, dict[str, Any]] = {
    "hpsv2": {"weights": "xswu/HPSv2", "filename": "HPS_v2_compressed.pt"},
    "hpsv2.1": {"weights": "xswu/HPSv2", "filename": "HPS_v2.1_compressed.pt"},
}
TABLE = {
    "hpsv2, hpsv2.1": (
        "xswu/HPSv2 (CLIP-H) | longest side to 224, black around | 77 tokens | "
        "cosine, mostly 0.2 to 0.4 | yes | Apache-2.0"
    ),
}


class HumanPreferenceScore(ClipScore):
    """The cosine, mostly 0.2 to 0.4; published tables print it times 100."""

    def __init__(self, tower: ClipTower, geometry: Geometry = HPS_224) -> None:
        super().__init__(tower, geometry)


def build(
    weights: str | None = None,
    *,
    filename: str | None = None,
    sha256: str | None = None,
    architecture: str | None = "ViT-H-14",
    tokenizer: Style = "openai",
    dtype: str = "float32",
    antialias: bool = True,
    towers: dict[str, Tower] | None = None,
) -> HumanPreferenceScore:
    """A checkpoint of open_clip or transformers from a file, a folder or the Hub; see `load_tower`.

    `antialias=False` is the resize that the authors' code got from torchvision before 0.17, on which the
    figures of 2023 were measured. Raises ValueError without weights.
    """
    tower = load_tower(
        weights,
        architecture=architecture,
        filename=filename,
        sha256=sha256,
        tokenizer=tokenizer,
        dtype=dtype,
        towers=towers,
    )
    return HumanPreferenceScore(tower, replace(HPS_224, size=tower.size, antialias=antialias))
