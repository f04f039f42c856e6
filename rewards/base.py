"""The interfaces every reward implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from rewards import inputs
from rewards.checks import check_images, check_prompts, check_scores, described
from rewards.device import device_of
from rewards.failures import Part, named_failures, scored_apart, ships
from rewards.preprocess import Geometry

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = 64
"""Rows that a table repeats at a time."""


class Reward(Part, ABC):
    """Scores images against prompts: higher is better, finite, one number an image."""

    differentiable: ClassVar[bool] = True
    """Whether gradients of the score reach the images; rules and oracles say False."""

    needs_text: ClassVar[bool] = True
    """Whether the score depends on the prompt. Scorers of the image alone say False: any prompt will do, such
    as "", and `t2ialign score` gives them images that have none."""

    @abstractmethod
    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B,); called through the module, which checks both."""

    def forward(self, images: inputs.Images, prompts: str | Sequence[str]) -> Tensor:
        """Images, a prompt for each or one for all -> (B,).

        A tensor (B, 3, H, W) or (3, H, W) in [0, 1] keeps its gradient. Whatever else `inputs.Images` names,
        of any size, is read upright and on white, and scored by the authors' own preprocessing. Raises
        ValueError, naming the image, for what cannot be read and for other shapes, ranges or counts.
        """
        if isinstance(images, Tensor):
            images = images[None] if images.ndim == 3 else images
            check_images(images)
            prompts = [prompts] * len(images) if isinstance(prompts, str) else list(prompts)
            check_prompts(prompts, len(images))
            batch, texts = images, prompts
            return scored_apart(self, lambda rows: _checked(self, batch[rows], texts[rows]), texts)
        given = inputs.listed(images)
        texts = inputs.matched(prompts, len(given))
        return self.score_items(inputs.read(given), texts)

    @torch.no_grad()
    def reference(self, images: inputs.Images, prompts: str | Sequence[str]) -> Tensor:
        """PIL images or paths, of any size and mode, a prompt for each or one for all -> (B,); no gradient.

        Everything is as in the authors' code: nothing is turned or laid on white, see `Geometry.rgb`. Raises
        ValueError, naming the image, for what cannot be read, and for tensors.
        """
        opened = inputs.opened(images)
        texts = inputs.matched(prompts, len(opened))
        return check_scores(self, self.score_pil(opened, texts), len(texts))

    def score_pil(self, images: list[Image], prompts: list[str]) -> Tensor:
        """B images of any size and mode, B prompts -> (B,): by the authors' own preprocessing.

        Here that is 8-bit RGB of its own size, and images of one size are scored at once.
        """
        return _by_size(self, [inputs.tensor(image) for image in images], prompts)

    def score_items(self, items: Sequence[inputs.Item], prompts: list[str]) -> Tensor:
        """B images of any size, PIL images or tensors (3, H, W) in [0, 1], B prompts -> (B,).

        A PIL image goes the authors' way (`score_pil`), a tensor the differentiable one (`score`).
        """
        tensors = {row: item for row, item in enumerate(items) if isinstance(item, Tensor)}
        opened = {row: item for row, item in enumerate(items) if not isinstance(item, Tensor)}
        scores, groups = [], [list(rows) for rows in (tensors, opened) if rows]
        if tensors:
            scores.append(_by_size(self, list(tensors.values()), [prompts[row] for row in tensors]))
        if opened:
            texts = [prompts[row] for row in opened]
            images = [image if ships(self) else image.copy() for image in opened.values()]
            with named_failures(self, texts):
                score = self.score_pil(images, list(texts))
            scores.append(check_scores(self, score, len(texts)))
        return _in_order(scores, groups)

    def table_pil(self, images: list[Image], candidates: list[list[str]]) -> Tensor:
        """B images of any size and mode, B lists of n_i prompts -> (sum n_i,), in order, as `score_pil`."""
        return _repeated(lambda rows, some: self.score_pil([images[row] for row in rows], some), candidates)

    def table(self, images: Tensor, candidates: Sequence[Sequence[str]]) -> list[Tensor]:
        """images (B, 3, H, W) in [0, 1], for each its own n_i prompts -> B tensors (n_i,); n_i may be 0.

        Every prompt is scored on that image. Raises ValueError like a call of the reward does.
        """
        check_images(images)
        if len(candidates) != len(images) or any(isinstance(c, str) for c in candidates):
            kind = "one string" if isinstance(candidates, str) else f"{len(candidates)} lists of prompts"
            raise ValueError(
                f"got {kind} for {len(images)} images; expected a list of prompts for each; pass [[prompt]]"
            )
        sizes = [len(prompts) for prompts in candidates]
        if not any(sizes):
            return [images.new_zeros(0) for _ in sizes]
        scores = self.score_table(images, [list(prompts) for prompts in candidates])
        return list(torch.split(check_scores(self, scores, sum(sizes)), sizes))

    def score_table(self, images: Tensor, candidates: list[list[str]]) -> Tensor:
        """images (B, 3, H, W), B lists of n_i prompts -> (sum n_i,), in order.

        Images are repeated, `CHUNK` rows at a time; scorers that can encode an image once do better.
        """
        return _repeated(lambda rows, some: self.score(images[rows], some), candidates)

    def category(self, prompt: str) -> str | None:
        """The name under which results for this prompt are grouped in tables; None when there is none."""
        return None


class Prepared(Reward):
    """A scorer that sees every image as one square: it says which, and scorers of equal ones share it."""

    geometry: Geometry

    def preprocess(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [0, 1] -> the squares the scorer reads (B, 3, S, S), normalised."""
        return self.geometry.tensor(images)

    @abstractmethod
    def score_prepared(self, pixels: Tensor, prompts: list[str]) -> Tensor:
        """pixels (B, 3, S, S) as `preprocess` gives them, B prompts -> (B,)"""

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B,)"""
        return self.score_prepared(self.preprocess(images), prompts)

    def squares(self, items: Sequence[inputs.Item]) -> Tensor:
        """B images of any size, PIL images or tensors (3, H, W) in [0, 1] -> (B, 3, S, S), normalised.

        A PIL image is prepared as the authors do it, a tensor differentiably.
        """
        rows = [
            self.preprocess(item[None])[0] if isinstance(item, Tensor) else self.geometry.reference(item)
            for item in items
        ]
        return torch.stack([row.to(device_of(self)) for row in rows])

    def score_pil(self, images: list[Image], prompts: list[str]) -> Tensor:
        """B images of any size and mode, B prompts -> (B,)"""
        return self.score_prepared(self.squares(images), prompts)

    def score_items(self, items: Sequence[inputs.Item], prompts: list[str]) -> Tensor:
        """B images of any size, PIL images or tensors (3, H, W) in [0, 1], B prompts -> (B,)"""
        check_prompts(prompts, len(items))
        pixels = self.squares(items)
        with named_failures(self, prompts):
            scores = self.score_prepared(pixels, list(prompts))
        return check_scores(self, scores, len(prompts))

    def table_prepared(self, pixels: Tensor, candidates: list[list[str]]) -> Tensor:
        """pixels (B, 3, S, S) as `preprocess` gives them, B lists of n_i prompts -> (sum n_i,), in order."""
        return _repeated(lambda rows, some: self.score_prepared(pixels[rows], some), candidates)

    def score_table(self, images: Tensor, candidates: list[list[str]]) -> Tensor:
        """images (B, 3, H, W), B lists of n_i prompts -> (sum n_i,), in order."""
        return self.table_prepared(self.preprocess(images), candidates)

    def table_pil(self, images: list[Image], candidates: list[list[str]]) -> Tensor:
        """B images of any size and mode, B lists of n_i prompts -> (sum n_i,): each is prepared once."""
        return self.table_prepared(self.squares(images), candidates)


class LatentReward(nn.Module, ABC):
    """Scores noisy latents at timestep t against prompts, without decoding them."""

    @abstractmethod
    def score(self, latents: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        """latents (B, C, h, w) at timesteps t (B,) long, B prompts -> (B,)"""

    def forward(self, latents: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        """latents (B, C, h, w), t (B,) long, B prompts -> (B,). Raises ValueError for any other shape."""
        if latents.ndim != 4 or not latents.is_floating_point():
            raise ValueError(
                f"got latents {described(latents)}; expected float (B, C, h, w); pass a 4-d batch"
            )
        if t.shape != (len(latents),) or t.is_floating_point():
            raise ValueError(
                f"got t {described(t)}; expected integers ({len(latents)},); pass one timestep a row"
            )
        check_prompts(prompts, len(latents))
        return check_scores(self, self.score(latents, t, prompts), len(prompts))


def _repeated(score: Callable[[list[int], list[str]], Tensor], candidates: list[list[str]]) -> Tensor:
    """Scores of rows of images and as many prompts, asked `CHUNK` at a time -> (sum n_i,), in order."""
    rows = [row for row, prompts in enumerate(candidates) for _ in prompts]
    flat = [prompt for prompts in candidates for prompt in prompts]
    spans = [slice(start, start + CHUNK) for start in range(0, len(flat), CHUNK)]
    return torch.cat([score(rows[span], flat[span]) for span in spans])


def _checked(reward: Reward, images: Tensor, prompts: list[str]) -> Tensor:
    with named_failures(reward, prompts):
        scores = reward.score(images, list(prompts))
    return check_scores(reward, scores, len(prompts))


def _by_size(reward: Reward, images: Sequence[Tensor], prompts: list[str]) -> Tensor:
    """B tensors (3, H, W) in [0, 1] of any size, B prompts -> (B,): those of one size are scored at once."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for row, image in enumerate(images):
        groups.setdefault((image.shape, image.dtype), []).append(row)
    scores = []
    for rows in groups.values():
        batch = torch.stack([images[row].to(device_of(reward)) for row in rows])
        scores.append(_checked(reward, batch, [prompts[row] for row in rows]))
    return _in_order(scores, list(groups.values()))


def _in_order(scores: Sequence[Tensor], groups: Sequence[list[int]]) -> Tensor:
    """Scores of groups of rows -> (B,), by row."""
    places = torch.tensor([row for rows in groups for row in rows]).argsort()
    joined = torch.cat([score.to(scores[0]) for score in scores])
    return joined[places.to(joined.device)]
