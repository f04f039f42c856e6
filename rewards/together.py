"""Several rewards on the same images: one resize for each geometry, one image forward for each tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from PIL.Image import Image
from torch import Tensor

from rewards.base import (
    Prepared,
    Reward,
    check_images,
    check_prompts,
    check_scores,
    device_of,
    named_failures,
    ships,
)
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
        return reward.score(_kept(_given(images, name), ours), texts)
    geometry = reward.geometry
    if geometry not in squares:
        squares[geometry] = reward.preprocess(_kept(_given(images, name), ours))
    if not isinstance(reward, TwoTower):
        return reward.score_prepared(_kept(squares[geometry], ours), texts)
    key = id(reward.tower), geometry
    if key not in embedded:
        embedded[key] = reward.encode_image(_kept(squares[geometry], ours))
    return reward.score_embedded(_kept(embedded[key], ours), texts)


def _kept(shared: Tensor, ours: bool) -> Tensor:
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
            rows = [_square(reward, item) for item in items]
            squares[reward.geometry] = torch.stack([row.to(device_of(reward)) for row in rows])
    scores = score_all(prepared, None, prompts, squares)
    return {
        name: scores[name] if name in prepared else _unprepared(reward, items, prompts)
        for name, reward in rewards.items()
    }


def by_size(reward: Reward, images: Sequence[Tensor], prompts: list[str]) -> Tensor:
    """B tensors (3, H, W) in [0, 1] of any size, B prompts -> (B,): those of one size are scored at once."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for row, image in enumerate(images):
        groups.setdefault((image.shape, image.dtype), []).append(row)
    scores = []
    for rows in groups.values():
        batch = torch.stack([images[row].to(device_of(reward)) for row in rows])
        texts = [prompts[row] for row in rows]
        with named_failures(reward, texts):
            score = reward.score(batch, list(texts))
        scores.append(check_scores(reward, score, len(rows)))
    return _in_order(scores, list(groups.values()))


def _unprepared(reward: Reward, items: Sequence[Image | Tensor], prompts: list[str]) -> Tensor:
    tensors = [row for row, item in enumerate(items) if isinstance(item, Tensor)]
    others = [row for row, item in enumerate(items) if not isinstance(item, Tensor)]
    scores, groups = [], [rows for rows in (tensors, others) if rows]
    for rows in groups:
        some, texts = [items[row] for row in rows], [prompts[row] for row in rows]
        if rows is tensors:
            scores.append(by_size(reward, [item for item in some if isinstance(item, Tensor)], texts))
        else:
            opened = [item for item in some if not isinstance(item, Tensor)]
            with named_failures(reward, texts):
                score = reward.score_pil(
                    opened if ships(reward) else [item.copy() for item in opened], list(texts)
                )
            scores.append(check_scores(reward, score, len(rows)))
    return _in_order(scores, groups)


def _square(reward: Prepared, item: Image | Tensor) -> Tensor:
    return reward.preprocess(item[None])[0] if isinstance(item, Tensor) else reward.geometry.reference(item)


def _in_order(scores: Sequence[Tensor], groups: Sequence[list[int]]) -> Tensor:
    """Scores of groups of rows -> (B,), by row."""
    places = torch.tensor([row for rows in groups for row in rows]).argsort()
    joined = torch.cat([score.to(scores[0]) for score in scores])
    return joined[places.to(joined.device)]
