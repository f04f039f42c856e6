"""Tensors in [0, 1] to the eight-bit pictures that file formats, detectors and text readers work on."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def eight_bit(images: Tensor) -> Tensor:
    """(..., H, W) in [0, 1] -> the same shape in uint8, rounded to the nearest and detached."""
    return images.detach().clamp(0, 1).mul_(255).round_().to(torch.uint8)


def arrays(images: Tensor) -> list[NDArray[np.uint8]]:
    """images (B, 3, H, W) in [0, 1] -> B arrays (H, W, 3), RGB."""
    return list(eight_bit(images).permute(0, 2, 3, 1).cpu().numpy())


def pictures(images: Tensor) -> list[Image.Image]:
    """images (B, 3, H, W) in [0, 1] -> B RGB pictures."""
    return [Image.fromarray(array) for array in arrays(images)]
