"""Several rewards on the same images: one resize for each geometry, one image forward for each tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL.Image import Image
from torch import Tensor

from rewards.base import Prepared, Reward
from rewards.checks import check_images, check_prompts, check_scores
from rewards.failures import named_failures, ships
from rewards.preprocess import Geometry
from rewards.towers.two_tower import TwoTower


def score_all(
    rewards: Mapping[str, Reward],
    images: Tensor | None,
    prompts: list[str],
    prepared: Mapping[Geometry, Tensor] | None = None,
) -> dict[str, Tensor]:
    """images (B, 3, H, W) in [0, 1], B prompts -> {name: (B,)}, with the values of one call each.

    `prepared` holds squares already made, by geometry (B, 3, S, S); with one for every reward `images` may
    be None. A reward that does not ship with this package gets copies, so that one that writes into its
    input does not change the scores of the others. Raises ValueError like a call of a reward does, and for a
    reward whose input is not given.
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
        with named_failures(reward, prompts):
            score = _score(reward, name, images, prompts, squares, embedded)
        scores[name] = check_scores(reward, score, len(prompts))
    return scores


def _score(
    reward: Reward,
    name: str,
    images: Tensor | None,
    prompts: list[str],
    squares: dict[Geometry, Tensor],
    embedded: dict[tuple[int, Geometry], Tensor],
) -> Tensor:
    """Scores (B,) of one reward; squares and embeddings that are not there yet are added for the others."""
    ours, texts = ships(reward), list(prompts)
    if not isinstance(reward, Prepared):
        return reward.score(_unchanged(_given(images, name), ours), texts)
    geometry = reward.geometry
    if geometry not in squares:
        squares[geometry] = reward.preprocess(_unchanged(_given(images, name), ours))
    if not isinstance(reward, TwoTower):
        return reward.score_prepared(_unchanged(squares[geometry], ours), texts)
    key = id(reward.tower), geometry
    if key not in embedded:
        embedded[key] = reward.encode_image(_unchanged(squares[geometry], ours))
    return reward.score_embedded(_unchanged(embedded[key], ours), texts)


def _unchanged(shared: Tensor, ours: bool) -> Tensor:
    """The tensor itself or, for a reward of the user's, a copy that it may write into; gradients pass.

    Writes through NumPy or `.data` change no version counter, so a copy is what helps.
    """
    return shared if ours else shared.clone()


def _given(images: Tensor | None, name: str) -> Tensor:
    if images is None:
        raise ValueError(f"got no images for {name}; expected them, or squares of its geometry; pass images")
    return images


def score_items(
    rewards: Mapping[str, Reward], items: Sequence[Image | Tensor], prompts: list[str]
) -> dict[str, Tensor]:
    """B images of any size, PIL images or tensors (3, H, W) in [0, 1], B prompts -> {name: (B,)}.

    A PIL image goes the authors' way (`Reward.score_pil`), a tensor the differentiable one. Each is prepared
    once a geometry and encoded once a tower.
    """
    prepared = {name: reward for name, reward in rewards.items() if isinstance(reward, Prepared)}
    squares: dict[Geometry, Tensor] = {}
    for reward in prepared.values():
        if reward.geometry not in squares:
            squares[reward.geometry] = reward.squares(items)
    scores = score_all(prepared, None, prompts, squares)
    return {
        name: scores[name] if name in prepared else reward.score_items(items, prompts)
        for name, reward in rewards.items()
    }
