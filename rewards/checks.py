"""What images, prompts and scores may be, checked at the boundary of every reward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rewards.text.length import too_long

SLACK = 1e-3
"""How far outside [0, 1] rounding may carry a pixel; a [-1, 1] image is far beyond it."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What scores may be; other kinds of floats add no numbers up."""


def check_images(images: Tensor) -> None:
    """Raises ValueError unless float (B, 3, H, W) in [0, 1], up to `SLACK`, with at least one pixel."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        hint = "divide uint8 by 255" if images.shape[1:2] == (3,) else "stack RGB images to a batch"
        raise ValueError(f"got images {described(images)}; expected float (B, 3, H, W) in [0, 1]; {hint}")
    if not images.numel():
        raise ValueError(f"got images {described(images)}; expected at least one pixel; skip empty batches")
    low, high = (float(v) for v in images.detach().aminmax())
    if not (low >= -SLACK and high <= 1 + SLACK):  # written so that NaN fails too
        raise ValueError(
            f"got pixels in [{low:.3g}, {high:.3g}]; expected [0, 1]; map [-1, 1] with x / 2 + 0.5"
        )


def check_prompts(prompts: list[str], rows: int) -> None:
    """Raises ValueError unless there is a list of one prompt a row, none longer than `LONGEST_PROMPT`."""
    if isinstance(prompts, str):
        raise ValueError(f"got one string {prompts!r}; expected a list of prompts; pass [prompt]")
    if len(prompts) != rows:
        raise ValueError(
            f"got {len(prompts)} prompts for {rows} rows; expected one each; repeat or drop some"
        )
    if wrong := next(filter(None, map(too_long, prompts)), None):
        raise ValueError(wrong)


def check_scores(module: nn.Module, scores: object, rows: int) -> Tensor:
    """The scores, if float (rows,). Raises ValueError, naming the class that made them, if not."""
    if not isinstance(scores, Tensor):
        raise ValueError(
            f"got a {type(scores).__name__} from {type(module).__name__}.score; expected a float tensor "
            f"({rows},); fix that method"
        )
    usable = scores.dtype in DTYPES and scores.layout == torch.strided and not scores.is_meta
    if scores.is_nested or scores.shape != (rows,) or not usable:
        name = type(module).__name__
        raise ValueError(
            f"got {described(scores)} from {name}.score; expected float ({rows},); fix that method"
        )
    return scores


def described(x: Tensor) -> str:
    """A tensor in messages: its kind of numbers and its shape."""
    kind = str(x.dtype).removeprefix("torch.")
    if x.is_nested or x.layout != torch.strided or x.is_meta:
        return f"{kind} of layout {x.layout} on {x.device}"
    return f"{kind} {tuple(x.shape)}"
