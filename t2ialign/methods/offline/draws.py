"""What is drawn for a batch of encoded rows: latents, a time and a noise for each, and dropped captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from t2ialign.data.cache.stored import EncodedRows
from t2ialign.diffusion.noise import Key, normal_rows, uniform_rows
from t2ialign.models.base import Cond, Policy

LEVEL, NOISE, LATENT, CAPTION = range(4)
"""Last parts of a row's random keys: of its timestep, its noise, its draw from the image encoder, and of
whether its caption is dropped."""
Place = tuple[int, int]
"""The number of a row, and of one of its draws of time, noise and latents."""
RowsT = TypeVar("RowsT", bound=EncodedRows)


@dataclass(frozen=True)
class Batch(Generic[RowsT]):
    """Rows with one timestep and one noise each, shared by the images of a row: only these may differ."""

    data: RowsT
    t: Tensor
    """(B,) training times"""
    eps: Tensor
    """(B, C, h, w)"""
    places: tuple[Place, ...] = ()
    """The B places of their draws among those that come again; none where all are drawn anew."""

    def residuals(self, policy: Policy) -> tuple[Tensor, ...]:
        """Network output minus target for each of the S images, (B, C, h, w), from one forward of S B."""
        x_0, cond = self.data.stacked(policy)
        sides = len(x_0) // len(self.t)
        out = policy.residual(x_0, self.eps.repeat(sides, 1, 1, 1), self.t.repeat(sides), cond)
        return out.chunk(sides)

    def to(self, device: torch.device) -> Batch[RowsT]:
        """The batch on another device."""
        return replace(self, data=self.data.to(device), t=self.t.to(device), eps=self.eps.to(device))

    def rows(self, rows: list[int]) -> Batch[RowsT]:
        """Some of its rows."""
        places = tuple(self.places[row] for row in rows) if self.places else ()
        return Batch(self.data.rows(rows), self.t[rows], self.eps[rows], places)


def levels(keys: Sequence[Key]) -> Tensor:
    """u (B,) uniform in [0, 1), which becomes a time; row i depends on keys[i] only."""
    return uniform_rows([(*key, LEVEL) for key in keys])


def at(t: Tensor, data: RowsT, keys: Sequence[Key]) -> Batch[RowsT]:
    """The rows at times t (B,), with a noise each that depends on keys[i] only."""
    return Batch(data, t, normal_rows(data.x_0.shape[2:], [(*key, NOISE) for key in keys]))


def drop_captions(rate: float, policy: Policy, data: RowsT, keys: Sequence[Key]) -> RowsT:
    """Give a row the empty prompt with probability `rate`; row i depends on keys[i] only."""
    if not rate:
        return data
    dropped = uniform_rows([(*key, CAPTION) for key in keys]) < rate

    def change(cond: Cond) -> Cond:
        empty = policy.null_cond(cond)
        return {
            name: torch.where(dropped.view(-1, *[1] * (value.ndim - 1)), empty[name], value)
            for name, value in cond.items()
        }

    return data.with_prompts(change)
