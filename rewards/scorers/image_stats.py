"""Statistics of an image that need no prompt: what reward hacking disturbs before people see it.

None is a goal in itself except the two JPEG rewards; read the others against the same figure of the base
model.
"""

import io
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.base import Reward
from rewards.pixels import pil_images

NAMES: dict[str, dict[str, str | float]] = {
    "jpeg-compressibility": {"statistic": "jpeg", "scale": -1.0},
    "jpeg-incompressibility": {"statistic": "jpeg", "scale": 1.0},
    "saturation": {"statistic": "saturation"},
    "contrast": {"statistic": "contrast"},
    "high-frequency": {"statistic": "high-frequency"},
    "grid": {"statistic": "grid"},
    "clipped": {"statistic": "clipped"},
}
TABLE = {
    "jpeg-compressibility, jpeg-incompressibility": (
        "none | 8 bits | nothing | minus or plus 1000 bytes at quality 95 | no | no weights"
    ),
    "saturation, high-frequency, grid, contrast": (
        "none | all | nothing | [0, 1]; `contrast` [0, 0.5] | yes | no weights"
    ),
    "clipped": "none | all | nothing | share of pixels at 0 or 255 | no | no weights",
}

QUALITY = 95
"""JPEG quality of the published rewards."""

LUMA = (0.299, 0.587, 0.114)
FLOOR = 1e-8
"""Variance of rounding noise: a plain image has no frequency and no grid, whatever its last bits are."""

HALF_NYQUIST = 0.25  # cycles a pixel; Nyquist is 0.5
LONGEST_PERIOD = 64  # pixels: twice the coarsest cell, 32, of the latent diffusion models in use
SMALLEST_SIDE = 8
BAND = 1 << 22
"""Pixels that are worked on at a time, so that a large image needs little more memory than itself."""


def jpeg_kilobytes(images: Tensor) -> Tensor:
    """Size in 1000 bytes as a JPEG of quality 95. (B, 3, H, W) -> (B,), above 0; no gradient.

    Black et al. 2023 (DDPO), section 5; flow_grpo divides its compressibility by 500.
    """
    sizes = []
    for image in torch.split(images, 1):
        buffer = io.BytesIO()
        pil_images(image)[0].save(buffer, format="JPEG", quality=QUALITY)
        sizes.append(buffer.tell() / 1000)
    return torch.tensor(sizes, device=images.device)


def saturation(images: Tensor) -> Tensor:
    """Mean HSV saturation, (max - min) / max over channels, 0 where black. (B, 3, H, W) -> (B,) in [0, 1]."""

    def each(part: Tensor) -> Tensor:
        high, low = _real(part).amax(1), _real(part).amin(1)
        lit = high > 0
        return torch.where(lit, (high - low) / torch.where(lit, high, 1.0), 0.0)

    return _mean(images, each)


def contrast(images: Tensor) -> Tensor:
    """RMS contrast, the standard deviation of luma, Peli 1990. (B, 3, H, W) -> (B,) in [0, 0.5]."""
    grey = luma(images)
    if grey[0].numel() <= BAND:
        variance = grey.var((1, 2), correction=0)
    else:
        bands = torch.split(grey, max(1, BAND // (len(grey) * grey.shape[2])), dim=1)
        middle = grey.mean((1, 2), keepdim=True)
        variance = torch.stack([(band - middle).square().sum((1, 2)) for band in bands]).sum(0)
        variance = variance / grey[0].numel()
    flat = variance <= 0
    return torch.where(flat, 0.0, torch.where(flat, 1.0, variance).sqrt())


def high_frequency(images: Tensor) -> Tensor:
    """Share of the luma's energy (mean removed) beyond half Nyquist. (B, 3, H, W) -> (B,) in [0, 1].

    0 for a plain image; 1 - pi / 16 = 0.80 for white noise; photographs lie between 0.01 and 0.06.
    """
    grey = luma(images)
    grey = grey - grey.mean((1, 2), keepdim=True)
    height, width = grey.shape[1:]
    down, right = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    total, high = grey.new_zeros(len(grey)), grey.new_zeros(len(grey))
    for columns, power in _power(grey):
        beyond: Tensor = (down.square() + right[columns].square() > HALF_NYQUIST**2).to(grey.device)
        total, high = total + power.sum((1, 2)), high + (power * beyond).sum((1, 2))
    return high / (total + FLOOR * (height * width) ** 2)


def grid_peak(images: Tensor) -> Tensor:
    """How exactly fine detail repeats along rows or columns. (B, 3, H, W) -> (B,) in [0, 1].

    Autocorrelation of the luma less its 3x3 mean, at lags up to 64 pixels along either axis: the highest rise
    above what came before, so that a long edge, whose correlation only falls, scores 0 and a perfect grid 1;
    photographs stay below 0.11. Differentiable almost everywhere.

    Raises ValueError for an image below 8 pixels a side.
    """
    if min(images.shape[-2:]) < SMALLEST_SIDE:
        size = f"{images.shape[-2]}x{images.shape[-1]}"
        raise ValueError(f"got images of {size}; expected {SMALLEST_SIDE} pixels a side; score whole images")
    grey = luma(images)[:, None]
    detail = (grey[..., 1:-1, 1:-1] - F.avg_pool2d(grey, 3, stride=1))[:, 0]
    del grey
    height, width = detail.shape[1:]
    # Only the first row and column of the autocorrelation are asked for: the sums of the power give them.
    of_columns, of_rows = [], detail.new_zeros(len(detail), height)
    for _, power in _power(detail):
        of_columns.append(power.sum(1))
        of_rows = of_rows + power.sum(2)
    shared = torch.cat(of_columns, dim=1) / _twice(width, detail)  # irfft itself doubles what stands for two
    across, down = torch.fft.irfft(shared, n=width) / height, torch.fft.ifft(of_rows).real / width
    whole = across[:, :1] + FLOOR * height * width
    along_rows = across[:, 1 : 1 + min(LONGEST_PERIOD, width // 2)] / whole
    along_columns = down[:, 1 : 1 + min(LONGEST_PERIOD, height // 2)] / whole
    return torch.maximum(_rise(along_rows), _rise(along_columns))


def clipped_share(images: Tensor) -> Tensor:
    """Share of pixels with a channel at 0 or 255 of 255. (B, 3, H, W) -> (B,) in [0, 1]; no gradient."""

    def each(part: Tensor) -> Tensor:
        real = _real(part)
        return ((real < 0.5 / 255) | (real > 254.5 / 255)).any(1).float()

    return _mean(images.detach(), each)


def luma(images: Tensor) -> Tensor:
    """Rec. 601 luma. (B, 3, H, W) -> (B, H, W) in [0, 1]."""
    weights = _real(images).new_tensor(LUMA)[:, None, None]
    groups = [
        _joined([(_real(band) * weights).sum(1) for band in _bands(group)], dim=1)
        for group in _groups(images)
    ]
    return _joined(groups, dim=0)


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
    """Convert to float32 or more: the FFT and long sums are not good in half precision."""
    return images if images.dtype == torch.float64 else images.float()


def _groups(images: Tensor) -> Sequence[Tensor]:
    """Group as many images as make up `BAND` pixels, or one alone."""
    return torch.split(images, max(1, BAND // images[0, 0].numel()))


def _bands(images: Tensor) -> Sequence[Tensor]:
    """Rows of all images together that make up `BAND` pixels: all of them unless an image is larger."""
    return torch.split(images, max(1, BAND // (len(images) * images.shape[-1])), dim=-2)


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def _mean(images: Tensor, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over the pixels of what a measure gives each of them: (B, 3, H, W), -> (B, H, W) -> (B,)."""
    means = []
    for group in _groups(images):
        bands = _bands(group)
        if len(bands) == 1:
            means.append(measure(group).mean((1, 2)))
        else:
            sums = torch.stack([measure(band).sum((1, 2)) for band in bands]).sum(0)
            means.append(sums / group[0, 0].numel())
    return torch.cat(means)


def _power(grey: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(B, H, W) -> columns of its half spectrum and their power (B, H, c), which stands for both halves."""
    half, twice = torch.fft.rfft(grey), _twice(grey.shape[-1], grey)
    width = max(1, BAND // (len(grey) * grey.shape[1]))
    for start in range(0, half.shape[-1], width):
        columns = slice(start, start + width)
        part = torch.fft.fft(half[..., columns], dim=1)
        yield columns, (part.real.square() + part.imag.square()) * twice[columns]


def _twice(width: int, like: Tensor) -> Tensor:
    """(W // 2 + 1,) how many columns of a spectrum each column of its half stands for."""
    number = like.new_full((width // 2 + 1,), 2.0)
    number[0] = 1
    if width % 2 == 0:
        number[-1] = 1
    return number


def _rise(correlation: Tensor) -> Tensor:
    """(B, lags) -> (B,): the most that any lag lies above the least before it, which counts as 0 below 0."""
    valley: Tensor = correlation.cummin(-1).values.clamp(min=0)
    return (correlation - valley).amax(-1).clamp(min=0)
