"""The device to compute on where none is named."""

from __future__ import annotations

import torch


def default_device() -> torch.device:
    """An NVIDIA or AMD GPU (cuda) if there is one, else Apple's GPU (mps), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
