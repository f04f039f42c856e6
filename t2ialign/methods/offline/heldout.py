"""Held-out rows: denoising errors at times and noise that never change, of the policy and its reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Generic

import torch
from torch import Tensor

from t2ialign.data.cache.stored import EncodedCache
from t2ialign.diffusion.noise import uniform_rows
from t2ialign.methods.offline.draws import LATENT, LEVEL, Batch, RowsT, at
from t2ialign.models.base import Policy
from t2ialign.objectives.preference import mean_square
from t2ialign.progress import Progress

DRAWS = 4
"""Times per row, one in each quarter of the training times."""

Figures = Callable[[EncodedCache[Any], list[int], Tensor, Tensor], dict[str, float]]
"""The cache, N numbers of rows, errors (S, N, DRAWS) of the policy and of the reference -> what is logged."""


class HeldOut(Generic[RowsT]):
    """Measures some rows of a cache; before training policy and reference err alike."""

    def __init__(
        self,
        policy: Policy,
        cache: EncodedCache[RowsT],
        figures: Figures,
        *,
        limit: int,
        chunk: int,
        seed: int,
    ) -> None:
        self.policy, self.cache, self.figures, self.seed = policy, cache, figures, seed
        groups: dict[torch.Size, list[int]] = defaultdict(list)  # a batch holds one latent size
        for (index,) in cache.plan(seed, 0, 1)[:limit]:
            groups[cache.batch([index], [(seed,)]).x_0.shape].append(int(index))
        self.chunks = [rows[i : i + chunk] for rows in groups.values() for i in range(0, len(rows), chunk)]
        self._reference: Tensor | None = None

    @property
    def count(self) -> int:
        """The number of rows that are measured."""
        return sum(map(len, self.chunks))

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The figures of the weights at hand."""
        if self._reference is None:  # at fixed noise the reference never changes
            with self.policy.reference():
                self._reference = torch.cat(list(self._errors()), 1)
        rows = [row for chunk in self.chunks for row in chunk]
        return self.figures(self.cache, rows, torch.cat(list(self._errors()), 1), self._reference)

    def _errors(self) -> Iterator[Tensor]:
        """Denoising errors (S, rows of a chunk, DRAWS)."""
        for rows in Progress(self.chunks, desc=f"held-out {self.cache.unit}s", unit="chunk", delay=3):
            errors = [mean_square(residual) for residual in self._batch(rows).residuals(self.policy)]
            yield torch.stack(errors).unflatten(1, (len(rows), DRAWS))

    def _batch(self, rows: list[int]) -> Batch[RowsT]:
        keys = [(self.seed, index, draw) for index in rows for draw in range(DRAWS)]
        data = self.cache.batch([key[1] for key in keys], [(*key, LATENT) for key in keys])
        quarter = torch.tensor([key[2] for key in keys])
        u = (quarter + uniform_rows([(*key, LEVEL) for key in keys])) / DRAWS
        return at(self.policy.draw_timesteps(1 - u), data, keys).to(self.policy.device)
