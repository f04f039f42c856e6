"""Images of a pair -> tensors of one size: one bucket, one crop, one mirroring for both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Size = tuple[int, int]
"""(H, W) in pixels."""


@dataclass(frozen=True)
class Framed:
    """An image ready to encode, and the sizes that SDXL is conditioned on."""

    pixels: Tensor
    """(3, H, W) in [0, 1]."""
    original: Size
    """(H, W) of the source."""
    crop: Size
    """(y, x) of the crop's top left corner, in pixels of the resized image, mirrored if it is."""
    target: Size
    """(H, W) of `pixels`."""


def bucket_sizes(resolution: int, image_factor: int, *, ratio: float = 2.0) -> list[Size]:
    """Sizes of nearly resolution^2 pixels, never more, with aspects from 1/ratio to ratio; the square first.

    The grid is 8 latent cells (64 pixels for Stable Diffusion), which every UNet's downsampling divides;
    below 32 cells it is 2. Raises ValueError if the resolution is not on the grid.
    """
    cells = 8 if resolution >= 32 * image_factor else 2
    grid = cells * image_factor
    if resolution < grid or resolution % grid:
        raise ValueError(f"got resolution {resolution}; expected a multiple of {grid} for aspect buckets")
    shorter = range(grid, resolution, grid)
    landscape = [(h, resolution * resolution // h // grid * grid) for h in shorter]
    landscape = [(h, w) for h, w in landscape if w <= ratio * h]
    return [(resolution, resolution), *landscape, *((w, h) for h, w in landscape)]


def nearest_bucket(images: Sequence[Image.Image], sizes: list[Size]) -> Size:
    """The size whose aspect is nearest to the geometric mean of the images' aspects."""
    aspect = sum(math.log(image.width / image.height) for image in images) / len(images)
    return min(sizes, key=lambda size: abs(math.log(size[1] / size[0]) - aspect))


def frame(image: Image.Image, target: Size, *, mirror: bool = False) -> Framed:
    """Resize an RGB image to cover `target` (Lanczos), crop its centre, mirror it if asked."""
    height, width = target
    scale = max(height / image.height, width / image.width)
    covered = max(round(image.height * scale), height), max(round(image.width * scale), width)
    top, left = (covered[0] - height) // 2, (covered[1] - width) // 2
    y, x = image.height / covered[0], image.width / covered[1]
    # Only the crop's own box is resized: a 10 x 100,000 image must not become 512 x 5,000,000 first.
    box = (left * x, top * y, (left + width) * x, (top + height) * y)
    cut = image.resize((width, height), Image.Resampling.LANCZOS, box=box)
    if mirror:
        cut, left = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT), covered[1] - width - left
    return Framed(_pixels(cut), (image.height, image.width), (top, left), target)


def stretch(image: Image.Image, target: Size) -> Tensor:
    """Resize an RGB image to exactly `target`, whatever its shape -> (3, H, W) in [0, 1].

    Bilinear over the area that a pixel covers, as torchvision resizes a PIL image.
    """
    height, width = target
    return _pixels(image.resize((width, height), Image.Resampling.BILINEAR))


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255
