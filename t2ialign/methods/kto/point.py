"""Means that are followed from batch to batch, over all processes: a reference point, or a shift per bin."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor


class RunningMeans:
    """K means over all examples at first, and over some 1 / (1 - decay) examples later on.

    decay: per example; with 0 the means are those of the last batch. `tensors` is all of its state.
    """

    def __init__(self, count: int, decay: float, accelerator: Accelerator) -> None:
        self.decay, self.accelerator = decay, accelerator
        device = accelerator.device
        self.tensors = {
            "mean": torch.zeros(count, device=device),
            "seen": torch.zeros(count, device=device),
        }

    def add(self, values: Tensor, bins: Tensor) -> Tensor:
        """Values (B,) of all processes, each of one of the K bins, into the means -> all means (K,)."""
        mean, seen = self.tensors["mean"], self.tensors["seen"]
        batch = torch.zeros(2, len(mean), device=mean.device)
        batch[0].index_add_(0, bins, values.detach().float())
        batch[1].index_add_(0, bins, torch.ones_like(values, dtype=torch.float32))
        sums, counts = self.accelerator.reduce(batch, "sum")
        seen += counts
        share = (counts / seen.clamp_min(1)).maximum(1 - self.decay**counts)
        mean += share * (sums / counts.clamp_min(1) - mean)
        return mean.clone()
