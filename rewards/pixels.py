"""Tensors in [0, 1] to the eight-bit images that file formats, detectors and text readers work on."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

BAND = 1 << 24
"""Numbers that are rounded at a time: a large image is not copied as floats."""


def eight_bit(images: Tensor) -> Tensor:
    """(..., H, W) in [0, 1] -> the same shape in uint8, rounded to the nearest and detached."""
    levels = torch.empty_like(images, dtype=torch.uint8)
    rows = max(1, BAND * images.shape[-2] // max(1, images.numel()))
    for band, into in zip(*(torch.split(x, rows, -2) for x in (images.detach(), levels)), strict=True):
        into.copy_(band.clamp(0, 1).mul_(255).round_())
    return levels


def arrays(images: Tensor) -> list[NDArray[np.uint8]]:
    """images (B, 3, H, W) in [0, 1] -> B arrays (H, W, 3), RGB."""
    return list(eight_bit(images).permute(0, 2, 3, 1).cpu().numpy())


def pil_images(images: Tensor) -> list[Image.Image]:
    """images (B, 3, H, W) in [0, 1] -> B RGB images."""
    return [Image.fromarray(array) for array in arrays(images)]
