"""The reference's errors on draws that come again: computed once, and remembered from then on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from t2ialign.methods.offline.draws import Place


class RememberedErrors:
    """The mean squared errors of the reference on winner and loser, for each draw of each pair.

    pairs, draws: how many there are. What is known is noted on the host, so that asking waits for no device.
    """

    def __init__(self, pairs: int, draws: int, device: torch.device) -> None:
        self.known = torch.zeros(pairs, draws, dtype=torch.bool)
        self.errors = torch.zeros(pairs, draws, 2, device=device)

    def __call__(self, places: Sequence[Place], compute: Callable[[list[int]], Tensor]) -> Tensor:
        """The errors (B, 2) at B places. compute: rows that are new -> their errors (rows, 2)."""
        pairs, draws = torch.tensor(places).unbind(1)
        if new := (~self.known[pairs, draws]).nonzero().flatten().tolist():
            self.errors[pairs[new], draws[new]] = compute(new)
            self.known[pairs[new], draws[new]] = True
        return self.errors[pairs, draws]


def draws(numbers: Sequence[int], epoch: int, count: int) -> list[int]:
    """Which of its `count` draws each pair of a batch gets: the next each epoch, another where it repeats."""
    seen: dict[int, int] = {}
    chosen = []
    for number in numbers:
        chosen.append((epoch + seen.setdefault(number, 0)) % count)
        seen[number] += 1
    return chosen
