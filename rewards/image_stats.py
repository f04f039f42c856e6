"""Statistics of an image that need no prompt: what reward hacking disturbs before people see it.

None is a goal in itself except the two JPEG rewards; read the others against the same figure of the base
model.
"""

import io
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.base import Reward
from rewards.pixels import pictures

NAMES: dict[str, dict[str, str | float]] = {
    "jpeg-compressibility": {"statistic": "jpeg", "scale": -1.0},
    "jpeg-incompressibility": {"statistic": "jpeg", "scale": 1.0},
    "saturation": {"statistic": "saturation"},
    "contrast": {"statistic": "contrast"},
    "high-frequency": {"statistic": "high-frequency"},
    "grid": {"statistic": "grid"},
    "clipped": {"statistic": "clipped"},
}

QUALITY = 95
"""JPEG quality of the published rewards."""

LUMA = (0.299, 0.587, 0.114)
FLOOR = 1e-8
"""Variance of rounding noise: a plain image has no frequency and no grid, whatever its last bits are."""

HALF_NYQUIST = 0.25  # cycles a pixel; Nyquist is 0.5
LONGEST_PERIOD = 64  # pixels: twice the coarsest cell, 32, of the latent diffusion models in use
SMALLEST_SIDE = 8


def jpeg_kilobytes(images: Tensor) -> Tensor:
    """Size in 1000 bytes as a JPEG of quality 95. (B, 3, H, W) -> (B,), above 0; no gradient.

    Black et al. 2023 (DDPO), section 5; flow_grpo divides its compressibility by 500.
    """
    sizes = []
    for picture in pictures(images):
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=QUALITY)
        sizes.append(buffer.tell() / 1000)
    return torch.tensor(sizes, device=images.device)


def saturation(images: Tensor) -> Tensor:
    """Mean HSV saturation, (max - min) / max over channels, 0 where black. (B, 3, H, W) -> (B,) in [0, 1]."""
    high, low = _real(images).amax(1), _real(images).amin(1)
    lit = high > 0
    return torch.where(lit, (high - low) / torch.where(lit, high, 1.0), 0.0).mean((1, 2))


def contrast(images: Tensor) -> Tensor:
    """RMS contrast, the standard deviation of luma, Peli 1990. (B, 3, H, W) -> (B,) in [0, 0.5]."""
    variance = luma(images).var((1, 2), correction=0)
    flat = variance <= 0
    return torch.where(flat, 0.0, torch.where(flat, 1.0, variance).sqrt())


def high_frequency(images: Tensor) -> Tensor:
    """Share of the luma's energy (mean removed) beyond half Nyquist. (B, 3, H, W) -> (B,) in [0, 1].

    0 for a plain image; 1 - pi / 16 = 0.80 for white noise; photographs lie between 0.01 and 0.06.
    """
    grey = luma(images)
    power = _power(grey - grey.mean((1, 2), keepdim=True))
    height, width = grey.shape[1:]
    down, right = torch.fft.fftfreq(height), torch.fft.fftfreq(width)
    beyond: Tensor = (down.square()[:, None] + right.square() > HALF_NYQUIST**2).to(grey.device)
    return (power * beyond).sum((1, 2)) / (power.sum((1, 2)) + FLOOR * (height * width) ** 2)


def grid_peak(images: Tensor) -> Tensor:
    """How exactly fine detail repeats along rows or columns. (B, 3, H, W) -> (B,) in [0, 1].

    Autocorrelation of the luma less its 3x3 mean, at lags up to 64 pixels along either axis: the highest rise
    above what came before, so that a long edge, whose correlation only falls, scores 0 and a perfect grid 1;
    photographs stay below 0.11. Differentiable almost everywhere.

    Raises ValueError for an image below 8 pixels a side.
    """
    if min(images.shape[-2:]) < SMALLEST_SIDE:
        size = f"{images.shape[-2]}x{images.shape[-1]}"
        raise ValueError(
            f"got images of {size}; expected {SMALLEST_SIDE} pixels a side; score whole pictures"
        )
    grey = luma(images)[:, None]
    detail = (grey[..., 1:-1, 1:-1] - F.avg_pool2d(grey, 3, stride=1))[:, 0]
    height, width = detail.shape[1:]
    correlation = torch.fft.ifft2(_power(detail)).real
    correlation = correlation / (correlation[:, :1, :1] + FLOOR * height * width)
    along_rows = correlation[:, 0, 1 : 1 + min(LONGEST_PERIOD, width // 2)]
    along_columns = correlation[:, 1 : 1 + min(LONGEST_PERIOD, height // 2), 0]
    return torch.maximum(_rise(along_rows), _rise(along_columns))


def clipped_share(images: Tensor) -> Tensor:
    """Share of pixels with a channel at 0 or 255 of 255. (B, 3, H, W) -> (B,) in [0, 1]; no gradient."""
    real = _real(images.detach())
    return ((real < 0.5 / 255) | (real > 254.5 / 255)).any(1).float().mean((1, 2))


def luma(images: Tensor) -> Tensor:
    """Rec. 601 luma. (B, 3, H, W) -> (B, H, W) in [0, 1]."""
    real = _real(images)
    return (real * real.new_tensor(LUMA)[:, None, None]).sum(1)


SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "saturation": saturation,
    "contrast": contrast,
    "high-frequency": high_frequency,
    "grid": grid_peak,
}
COUNTED: dict[str, Callable[[Tensor], Tensor]] = {"jpeg": jpeg_kilobytes, "clipped": clipped_share}


def statistics(images: Tensor, which: Sequence[str] = (*SMOOTH, *COUNTED)) -> dict[str, Tensor]:
    """images (B, 3, H, W) in [0, 1] -> {name: (B,)}, "jpeg" in 1000 bytes; all of them unless told which."""
    return {name: {**SMOOTH, **COUNTED}[name](images) for name in which}


class Statistic(Reward):
    """A differentiable statistic times a scale, its range that of the statistic; the prompt is not read."""

    needs_text = False

    def __init__(self, measure: Callable[[Tensor], Tensor], scale: float = 1.0) -> None:
        super().__init__()
        self.measure, self.scale = measure, scale

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B,)"""
        return self.scale * self.measure(images)

    def score_table(self, images: Tensor, candidates: list[list[str]]) -> Tensor:
        """images (B, 3, H, W), B lists of n_i prompts -> (sum n_i,): each image is measured once."""
        return self.score(images, [])[[row for row, prompts in enumerate(candidates) for _ in prompts]]


class Count(Statistic):
    """A statistic that no gradient passes: JPEG size, or the share of clipped pixels."""

    differentiable = False


def build(statistic: str = "saturation", scale: float = 1.0) -> Statistic:
    """A statistic by name, times `scale`. Raises ValueError for an unknown name, listing the known ones."""
    if statistic in SMOOTH:
        return Statistic(SMOOTH[statistic], scale)
    if statistic in COUNTED:
        return Count(COUNTED[statistic], scale)
    known = ", ".join([*SMOOTH, *COUNTED])
    raise ValueError(f"got statistic {statistic!r}; expected one of {known}; check the spelling")


def _real(images: Tensor) -> Tensor:
    """At least float32: neither the FFT nor a sum over a million pixels is good in half precision."""
    return images if images.dtype == torch.float64 else images.float()


def _power(grey: Tensor) -> Tensor:
    spectrum = torch.fft.fft2(grey)
    power: Tensor = spectrum.real.square() + spectrum.imag.square()
    return power


def _rise(correlation: Tensor) -> Tensor:
    """(B, lags) -> (B,): the most that any lag lies above the least before it, which counts as 0 below 0."""
    valley: Tensor = correlation.cummin(-1).values.clamp(min=0)
    return (correlation - valley).amax(-1).clamp(min=0)
