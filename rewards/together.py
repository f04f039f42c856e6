"""Several rewards on the same images: one resize for each geometry, one image forward for each tower."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from rewards.base import Prepared, Reward, check_images, check_prompts, check_scores
from rewards.preprocess import Geometry
from rewards.two_tower import TwoTower


def score_all(
    rewards: Mapping[str, Reward],
    images: Tensor | None,
    prompts: list[str],
    prepared: Mapping[Geometry, Tensor] | None = None,
) -> dict[str, Tensor]:
    """images (B, 3, H, W) in [0, 1], B prompts -> {name: (B,)}, with the values of one call each.

    `prepared` holds squares already made, by geometry (B, 3, S, S); with one for every reward `images` may
    be None. Raises ValueError like a call of a reward does, and for a reward whose input is not given.
    """
    if images is not None:
        check_images(images)
        check_prompts(prompts, len(images))
    squares = dict(prepared or {})
    for pixels in squares.values():
        check_prompts(prompts, len(pixels))
    embedded: dict[tuple[int, Geometry], Tensor] = {}
    scores = {}
    for name, reward in rewards.items():
        if isinstance(reward, Prepared):
            geometry = reward.geometry
            if geometry not in squares:
                squares[geometry] = reward.preprocess(_given(images, name))
            pixels = squares[geometry]
        if isinstance(reward, TwoTower):
            key = id(reward.tower), geometry
            if key not in embedded:
                embedded[key] = reward.encode_image(pixels)
            score = reward.score_embedded(embedded[key], prompts)
        elif isinstance(reward, Prepared):
            score = reward.score_prepared(pixels, prompts)
        else:
            score = reward.score(_given(images, name), prompts)
        scores[name] = check_scores(reward, score, len(prompts))
    return scores


def _given(images: Tensor | None, name: str) -> Tensor:
    if images is None:
        raise ValueError(f"got no images for {name}; expected them, or squares of its geometry; pass images")
    return images
