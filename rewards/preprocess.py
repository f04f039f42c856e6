"""Makes the normalised square that a scorer reads: the authors' preprocessing and a differentiable one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Geometry:
    """How an image becomes a square of `size` pixels; equal ones are shared by all scorers that name them.

    `fit`: "crop" scales the shorter side to `size` and cuts the centre, "pad" scales the longer side and
    puts zeros (black) around, "squash" ignores the aspect. `middle` is the side on which an odd margin of
    a crop falls: "round" as in torchvision (half to even), "floor" as in transformers. `source` is what
    the authors resized: "uint8" (PIL: rounded and clipped to 0..255) or "float" (a tensor: neither).
    `antialias=False` is what a tensor got from torchvision before 0.17. `rgb` is when the authors make RGB of
    another mode: "last" resizes its alpha channel with it, premultiplied, and its palette by the nearest
    colour; a tensor ("float") is always made of RGB.
    """

    size: int
    fit: Literal["crop", "pad", "squash"] = "crop"
    mean: Triple = CLIP_MEAN
    std: Triple = CLIP_STD
    middle: Literal["round", "floor"] = "round"
    source: Literal["uint8", "float"] = "uint8"
    interpolation: Literal["bicubic", "bilinear", "lanczos"] = "bicubic"
    antialias: bool = True
    rgb: Literal["first", "last"] = "last"

    def tensor(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [0, 1] -> (B, 3, size, size), normalised, fp32 (fp64 stays); differentiable.

        Like the PIL path without its rounding to 1/255: the filter runs along rows, then columns, and its
        overshoot is clipped after either.
        """
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        height, width = self.scaled(*images.shape[-2:])
        if self.source == "float":
            images = self._resized(images, height, width)
        else:
            images = self._resized(images, images.shape[-2], width).clamp(0, 1)
            images = self._resized(images, height, width).clamp(0, 1)
        return self._normalised(self._fitted(images))

    def reference(self, image: Image) -> Tensor:
        """An image of any mode -> (3, size, size), normalised fp32: the steps of the authors' own code."""
        import numpy as np
        from PIL.Image import Resampling

        if (self.rgb == "first" or self.source == "float") and image.mode != "RGB":
            image = image.convert("RGB")
        height, width = self.scaled(image.height, image.width)
        if self.source == "uint8":
            image = image.resize((width, height), Resampling[self.interpolation.upper()])
            levels = np.array(image.convert("RGB"))  # of each pixel alone, so it may come before the cut
            pixels = torch.from_numpy(levels).permute(2, 0, 1)[None].float() / 255
            return self._normalised(self._fitted(pixels))[0]
        # A channel at a time: the same numbers, and a large image is never in memory as floats.
        channels = (torch.from_numpy(np.array(image.getchannel(name)))[None, None] for name in "RGB")
        resized = [self._resized(channel.float().div_(255), height, width) for channel in channels]
        return self._normalised(self._fitted(torch.cat(resized, dim=1)))[0]

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the resize, before cut or margin; a crop rounds the longer side down."""
        if self.fit == "squash":
            return self.size, self.size
        if self.fit == "crop":
            short = min(height, width)
            return int(self.size * height / short), int(self.size * width / short)
        scale = self.size / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _resized(self, images: Tensor, height: int, width: int) -> Tensor:
        """(B, 3, H, W) -> (B, 3, height, width) by the filter."""
        if images.shape[-2:] == (height, width):
            return images
        if self.interpolation == "lanczos":
            across, down = (
                _lanczos(images, *pair) for pair in ((images.shape[-1], width), (images.shape[-2], height))
            )
            return down @ (images @ across.mT)
        return F.interpolate(images, (height, width), mode=self.interpolation, antialias=self.antialias)

    def _fitted(self, images: Tensor) -> Tensor:
        """Cut the centre, or put zeros around: (B, 3, h, w) -> (B, 3, size, size)."""
        down, right = images.shape[-2] - self.size, images.shape[-1] - self.size
        if self.fit == "pad":
            top, left = -down // 2, -right // 2
            return F.pad(images, (left, -right - left, top, -down - top))
        top, left = (round(d / 2) if self.middle == "round" else d // 2 for d in (down, right))
        return images[..., top : top + self.size, left : left + self.size]

    def _normalised(self, images: Tensor) -> Tensor:
        mean, std = (images.new_tensor(triple).view(3, 1, 1) for triple in (self.mean, self.std))
        return (images - mean) / std


def _lanczos(like: Tensor, before: int, after: int) -> Tensor:
    """(after, before): PIL's Lanczos filter of 3 lobes, widened by the scale where it shrinks."""
    scale = before / after
    stretch = max(scale, 1.0)
    centre = (torch.arange(after, dtype=like.dtype, device=like.device) + 0.5) * scale
    inside = torch.arange(before, dtype=like.dtype, device=like.device) + 0.5
    offset = (inside[None] - centre[:, None]) / stretch
    weight = torch.sinc(offset) * torch.sinc(offset / 3) * (offset.abs() < 3)
    return weight / weight.sum(1, keepdim=True)


CLIP_224 = Geometry(224)
"""OpenAI CLIP, CLIPScore, LAION aesthetic, ImageReward: torchvision on PIL, RGB after the cut."""

CLIP_224_FLOOR = Geometry(224, middle="floor", rgb="first")
"""PickScore, MPS: transformers' CLIPImageProcessor on PIL; differs where a margin is odd."""

HPS_224 = Geometry(224, "pad", source="float", rgb="first")
"""HPSv2: resized as a tensor, by the longest side."""

SIMULACRA_224 = Geometry(224, interpolation="lanczos", rgb="first")
"""Simulacra's own ranking script; its heads were fitted on RGB images in `CLIP_224`."""
