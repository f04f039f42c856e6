"""The device to compute on: where weights are, and where none is named."""

from __future__ import annotations

import torch
from torch import nn


def default_device() -> torch.device:
    """An NVIDIA or AMD GPU (cuda) if there is one, else Apple's GPU (mps), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_of(module: nn.Module) -> torch.device:
    """Where its weights are; the CPU without any."""
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device
