"""The two interfaces every reward implements, and the checks at their boundary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

SLACK = 1e-3
"""How far outside [0, 1] rounding may carry a pixel; a [-1, 1] image is far beyond it."""


class Reward(nn.Module, ABC):
    """Scores images against prompts: higher is better, finite, one number an image."""

    differentiable: ClassVar[bool] = True
    """Whether gradients of the score reach the images; rules and oracles say False."""

    @abstractmethod
    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B,); called through the module, which checks both."""

    def forward(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B,). Raises ValueError for other shapes or ranges."""
        _check_images(images)
        _check_prompts(prompts, len(images))
        return _checked(self, self.score(images, prompts), len(prompts))

    def category(self, prompt: str) -> str | None:
        """The name under which results for this prompt are grouped in tables; None when there is none."""
        return None


class LatentReward(nn.Module, ABC):
    """Scores noisy latents at timestep t against prompts, without decoding them."""

    @abstractmethod
    def score(self, latents: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        """latents (B, C, h, w) at timesteps t (B,) long, B prompts -> (B,)"""

    def forward(self, latents: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        """latents (B, C, h, w), t (B,) long, B prompts -> (B,). Raises ValueError for any other shape."""
        if latents.ndim != 4 or not latents.is_floating_point():
            raise ValueError(
                f"got latents {_describe(latents)}; expected float (B, C, h, w); pass a 4-d batch"
            )
        if t.shape != (len(latents),) or t.is_floating_point():
            raise ValueError(
                f"got t {_describe(t)}; expected integers ({len(latents)},); pass one timestep a row"
            )
        _check_prompts(prompts, len(latents))
        return _checked(self, self.score(latents, t, prompts), len(prompts))


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        hint = "divide uint8 by 255" if images.shape[1:2] == (3,) else "stack RGB images to a batch"
        raise ValueError(f"got images {_describe(images)}; expected float (B, 3, H, W) in [0, 1]; {hint}")
    if not images.numel():
        raise ValueError(f"got images {_describe(images)}; expected at least one pixel; skip empty batches")
    low, high = (float(v) for v in images.detach().aminmax())
    if not (low >= -SLACK and high <= 1 + SLACK):  # written so that NaN fails too
        raise ValueError(
            f"got pixels in [{low:.3g}, {high:.3g}]; expected [0, 1]; map [-1, 1] with x / 2 + 0.5"
        )


def _check_prompts(prompts: list[str], rows: int) -> None:
    if isinstance(prompts, str):
        raise ValueError(f"got one string {prompts!r}; expected a list of prompts; pass [prompt]")
    if len(prompts) != rows:
        raise ValueError(
            f"got {len(prompts)} prompts for {rows} rows; expected one each; repeat or drop some"
        )


def _checked(module: nn.Module, scores: Tensor, rows: int) -> Tensor:
    if scores.shape != (rows,) or not scores.is_floating_point():
        name = type(module).__name__
        raise ValueError(
            f"got {_describe(scores)} from {name}.score; expected float ({rows},); fix that method"
        )
    return scores


def _describe(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
