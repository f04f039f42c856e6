"""A reward as a network that the loop trains: its reading of stored images, and its trained weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from rewards import Geometry, Prepared, Reward, TwoTower
from t2ialign.data.transform import frame

HEADS = (
    *("*visual_projection.*", "*text_projection*", "*.visual.proj"),  # CLIP of transformers and open_clip
    *("mlp.*", "*.mlp_head.*", "head.*", "rm_head.*", "logit_scale", "*.logit_scale"),
)
"""Names of the weights that train=head trains, where a scorer has no weights outside its towers."""


@dataclass(frozen=True)
class Squares:
    """How images are stored for a scorer: the square it reads, in 8 bits where the authors' path has 8.

    Without a geometry the scorer takes images of any size: they are centre crops of `size` pixels.
    """

    geometry: Geometry | None
    size: int

    @classmethod
    def of(cls, reward: Reward, resolution: int | None) -> Squares:
        """The squares of a reward; one for any size needs a resolution. Raises ValueError without it."""
        if isinstance(reward, Prepared):
            return cls(reward.geometry, reward.geometry.size)
        if resolution is None:
            raise ValueError(
                f"got {type(reward).__name__}, which reads images of any size, and no resolution; expected "
                "the pixels of their sides; set resolution"
            )
        return cls(None, resolution)

    def prepare(self, image: Image.Image) -> Tensor:
        """An RGB image -> (3, S, S): uint8 levels, or normalised fp16 where the authors resize floats."""
        if self.geometry is None:
            return (255 * frame(image, (self.size, self.size)).pixels).round().to(torch.uint8)
        pixels = self.geometry.reference(image)
        if self.geometry.source == "float":
            return pixels.half()
        mean, std = self._statistics(pixels)
        return (255 * (pixels * std + mean)).round().to(torch.uint8)

    def pixels(self, stored: Tensor) -> Tensor:
        """(B, 3, S, S) as stored -> what the scorer reads, fp32: as its `reference` path gives it."""
        if stored.dtype != torch.uint8:
            return stored.float()
        levels = stored.float() / 255
        if self.geometry is None:
            return levels
        mean, std = self._statistics(levels)
        return (levels - mean) / std

    def made_of(self) -> dict[str, Any]:
        """The settings that decide whether stored images can be used again."""
        parts = asdict(self.geometry) if self.geometry else {}
        parts.pop("rgb", None)  # stored images are RGB already
        return {"size": self.size, **parts}

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        assert self.geometry is not None, "only normalised squares have statistics"
        mean, std = (like.new_tensor(row).view(3, 1, 1) for row in (self.geometry.mean, self.geometry.std))
        return mean, std


class Scorer(nn.Module):
    """A reward over stored images, compared two by two."""

    def __init__(self, reward: Reward, squares: Squares) -> None:
        super().__init__()
        self.reward, self.squares = reward, squares

    def forward(self, win: Tensor, lose: Tensor, prompts: list[str]) -> Tensor:
        """Stored images (B, 3, S, S) of both sides, B prompts -> score(win) - score(lose), (B,) fp32."""
        pixels = self.squares.pixels(torch.cat([win, lose]))
        if isinstance(self.reward, Prepared):
            scores = self.reward.score_prepared(pixels, prompts * 2)
        else:
            scores = self.reward(pixels, prompts * 2)
        first, second = scores.float().chunk(2)
        return first - second


def train_weights(reward: Reward, patterns: Sequence[str]) -> None:
    """Make trainable, in fp32, the weights whose names match, and freeze the others.

    Raises ValueError if none matches.
    """
    names = [name for name, _ in reward.named_parameters()]
    chosen = {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}
    if not chosen:
        raise ValueError(
            f"got layers {', '.join(patterns) or 'none'}, which match no weight of {type(reward).__name__}; "
            f"expected patterns for {', '.join(names[-3:]) or 'weights, which it lacks'}; set layers"
        )
    for name, parameter in reward.named_parameters():
        parameter.requires_grad_(name in chosen)
        if name in chosen:
            parameter.data = parameter.data.float()


def head(reward: Reward) -> list[str]:
    """Patterns of the weights of its head: those outside its towers, or the towers' last projections."""
    if isinstance(reward, TwoTower):
        outside_tower = [name for name, _ in reward.named_parameters() if not name.startswith("tower.")]
        return outside_tower or list(HEADS)
    return list(HEADS)


def probe(scorer: Scorer, prompts: Sequence[str]) -> Tensor:
    """Margins (2,) of images of noise for two prompts: they depend on every weight that scores depend on.

    The prompts are the user's own, since a scorer may know no others.
    """
    size, device = scorer.squares.size, next(scorer.reward.parameters()).device
    noise = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    stored = torch.stack([scorer.squares.prepare(Image.fromarray(image)) for image in noise]).to(device)
    margin: Tensor = scorer(stored, stored.flip(0), list(prompts))
    return margin
