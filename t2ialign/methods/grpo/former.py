"""Weights of a former moment, put in the place of the present ones for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

RISE, MOST = 0.001, 0.5
"""How the share of the former weights that the next ones keep grows with the step, and where it ends."""


@contextmanager
def in_place_of(parameters: Sequence[Tensor], former: Sequence[Tensor]) -> Iterator[None]:
    """Within this block the parameters have the values of `former`, and nothing records gradients."""
    with torch.no_grad():
        present = [parameter.clone() for parameter in parameters]
        _copy(former, parameters)
        try:
            yield
        finally:
            _copy(present, parameters)


@torch.no_grad()
def next_sampling_policy(
    former: Mapping[str, Tensor], present: Mapping[str, Tensor], step: int
) -> dict[str, Tensor]:
    """d former + (1 - d) present with d = min(0.001 step, 0.5), once a round; step: updates so far.

    Zheng et al. 2025 (DiffusionNFT), the default of its code.
    """
    d = min(RISE * step, MOST)
    return {name: d * former[name].to(value) + (1 - d) * value.detach() for name, value in present.items()}


def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    for one, other in zip(source, target, strict=True):
        other.copy_(one)
