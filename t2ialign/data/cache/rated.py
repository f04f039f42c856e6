"""The cache of single images with a prompt, each liked or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from t2ialign.data.cache.stored import EncodedCache, EncodedRows
from t2ialign.data.rated import LIKED
from t2ialign.diffusion.noise import Key


@dataclass(frozen=True, kw_only=True)
class Rated(EncodedRows):
    """A batch of images: S is 1."""

    liked: Tensor
    """(B,) 1 for a liked image, 0 for a disliked one."""


class RatedCache(EncodedCache[Rated]):
    """Single images."""

    stem, unit = "images", "image"
    made_of: ClassVar[Mapping[str, str]] = {"kind": "images"}

    def batch(self, indices: Sequence[int] | np.ndarray, keys: Sequence[Key]) -> Rated:
        """Images of one bucket, as `EncodedCache.batch` says."""
        return Rated(liked=self.chosen(LIKED, indices), **self.drawn(indices, keys))
