"""The two factors that a LoRA adds to a layer, and the algebra on them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Factors(NamedTuple):
    """The two factors of a layer of a LoRA, fp32, alpha / rank folded into `up`: delta W = up @ down.

    down (r, in), up (out, r); of a convolution (r, in, h, w) and (out, r, 1, 1).
    """

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        """The rank r."""
        return len(self.down)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of delta W: (out, in), or (out, in, h, w)."""
        return (len(self.up), *self.down.shape[1:])

    @property
    def delta(self) -> Tensor:
        """Delta W, in the shape of the layer's weight."""
        return torch.einsum("or...,ri...->oi...", self.up, self.down)

    def times(self, weight: float) -> Factors:
        """The factors of `weight` times delta W."""
        return Factors(self.down, weight * self.up)


Layers = dict[str, Factors]
"""Factors by key, such as unet.mid_block.attentions.0.proj_in (`t2ialign.models.lora_names`)."""


def filled(factors: Factors, rank: int) -> Factors:
    """The same change of the layer in factors of this rank, the added rows and columns zero."""
    parts = []
    for dim, factor in enumerate(factors):
        missing = list(factor.shape)
        missing[dim] = rank - missing[dim]
        parts.append(torch.cat([factor, factor.new_zeros(missing)], dim))
    return Factors(*parts)
