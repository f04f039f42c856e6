"""Held-out pairs: does the policy prefer the winners of prompts it never trained on?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from t2ialign.data.cache.stored import PairCache
from t2ialign.diffusion.noise import normal_rows, uniform_rows
from t2ialign.methods.dpo.loss import LATENT, LEVEL, NOISE, Batch
from t2ialign.models.base import Policy
from t2ialign.objectives.preference import denoising_ratio, mean_square, wins
from t2ialign.progress import Progress

DRAWS = 4
"""Times per pair, one in each quarter of the training times."""


class HeldOut:
    """Implicit accuracy at timesteps and noise that never change; 50 % before training, all margins 0."""

    def __init__(
        self, policy: Policy, cache: PairCache, *, beta: float, limit: int, chunk: int, seed: int
    ) -> None:
        self.policy, self.cache, self.beta, self.seed = policy, cache, beta, seed
        groups: dict[torch.Size, list[int]] = defaultdict(list)  # a batch holds one latent size
        for (index,) in cache.plan(seed, 0, 1)[:limit]:
            groups[cache.batch([index], [(seed,)]).win.shape].append(int(index))
        self.chunks = [rows[i : i + chunk] for rows in groups.values() for i in range(0, len(rows), chunk)]
        self._reference: list[Tensor] = []

    @property
    def pairs(self) -> int:
        """The number of held-out pairs that are measured."""
        return sum(map(len, self.chunks))

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Share of pairs with a positive mean margin over the draws (a tie counts half); the DPO loss."""
        if not self._reference:  # at fixed noise the reference never changes
            with self.policy.reference():
                self._reference = list(self._errors())
        pairs = zip(self._errors(), self._reference, strict=True)
        margins = torch.cat(
            [self._margins(errors, reference) for errors, reference in pairs]
        )  # (pairs, DRAWS)
        losses = -logsigmoid(self.beta * margins)
        accuracy, loss = torch.stack([wins(margins.mean(1)).mean(), losses.mean()]).tolist()
        return {"heldout/implicit_acc": accuracy, "heldout/loss": loss}

    def _errors(self) -> Iterator[Tensor]:
        """Denoising errors (winner and loser, pairs of a chunk, DRAWS)."""
        for rows in Progress(self.chunks, desc="held-out pairs", unit="chunk", delay=3):
            errors = [mean_square(residual) for residual in self._batch(rows).residuals(self.policy)]
            yield torch.stack(errors).unflatten(1, (len(rows), DRAWS))

    def _margins(self, errors: Tensor, reference: Tensor) -> Tensor:
        r_win, r_lose = denoising_ratio(errors, reference)
        return r_win - r_lose

    def _batch(self, rows: list[int]) -> Batch:
        keys = [(self.seed, index, draw) for index in rows for draw in range(DRAWS)]
        pairs = self.cache.batch([key[1] for key in keys], [(*key, LATENT) for key in keys])
        quarter = torch.tensor([key[2] for key in keys])
        u = (quarter + uniform_rows([(*key, LEVEL) for key in keys])) / DRAWS
        noise = normal_rows(pairs.win.shape[1:], [(*key, NOISE) for key in keys])
        return Batch(pairs, self.policy.draw_timesteps(1 - u), noise).to(self.policy.device)
