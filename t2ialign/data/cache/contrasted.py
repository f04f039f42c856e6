"""The cache of single images, each with its prompt and prompts that do not fit it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from t2ialign.data.cache.stored import EncodedCache, EncodedRows
from t2ialign.diffusion.noise import Key, uniform_rows
from t2ialign.models.base import Cond, Policy

OTHER = 3
"""Last part of the key by which one of a row's mismatched prompts is drawn."""


@dataclass(frozen=True, kw_only=True)
class Contrasted(EncodedRows):
    """A batch of images, S is 1, each with its prompt and one that does not fit it."""

    other: Cond
    """The B mismatched prompts, without sizes."""

    def with_prompts(self, change: Callable[[Cond], Cond]) -> Self:
        """The rows with both prompts changed."""
        return replace(super().with_prompts(change), other=change(self.other))

    def stacked(self, policy: Policy) -> tuple[Tensor, Cond]:
        """The images twice, (2 B, C, h, w): first with their own prompts, then with the others."""
        cond = {key: torch.cat([value, self.other[key]]) for key, value in self.cond.items()}
        sizes = torch.cat([self.sizes[:, 0]] * 2)
        cond = policy.with_size(cond, original=sizes[:, :2], crop=sizes[:, 2:4], target=sizes[:, 4:])
        return torch.cat([self.x_0[:, 0]] * 2), cond


class ContrastedCache(EncodedCache[Contrasted]):
    """Single images with mismatched prompts."""

    stem, unit = "images", "image"
    made_of: ClassVar[Mapping[str, str]] = {"kind": "images with mismatched prompts"}

    def batch(self, indices: Sequence[int] | np.ndarray, keys: Sequence[Key]) -> Contrasted:
        """Images of one bucket, as `EncodedCache.batch` says; which mismatched prompt, by the key too."""
        numbers = self.column("others")[np.asarray(indices)]
        drawn = (uniform_rows([(*key, OTHER) for key in keys]) * numbers.shape[1]).long().numpy()
        other = self.texts(numbers[np.arange(len(numbers)), drawn])
        return Contrasted(other=other, **self.drawn(indices, keys))
