"""Losses of single images that are liked or not: Diffusion-KTO and BCO.

Both see g = ref_err - err, the drop in mean squared denoising error below the reference's, which stands for
log pi / pi_ref (without the half that pairs have: betas are published so), and compare it with a reference
point instead of with another image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

UTILITIES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "kahneman_tversky": torch.sigmoid,
    "loss_averse": logsigmoid,
    "risk_seeking": lambda x: -logsigmoid(-x),
}
"""Name -> the utility of a gain. Li et al. 2024 (Diffusion-KTO), section 4."""


def kto(g: Tensor, liked: Tensor, *, beta: float, point: Tensor, utility: str = "kahneman_tversky") -> Tensor:
    """1 - U(s beta (g - point)) with s = 1 for liked images and -1 for others, (B,) -> (B,).

    g (B,); liked (B,) 1 or 0; point: the reference point, a number without gradient. Li et al. 2024, arXiv
    2404.04465.
    """
    sign = 2 * liked - 1
    return 1 - UTILITIES[utility](sign * beta * (g - point.detach()))


def bco(g: Tensor, liked: Tensor, *, beta: float, shift: Tensor) -> Tensor:
    """-log sigmoid(s (beta g - shift)) with s = 1 for liked images and -1 for others, (B,) -> (B,).

    It is the loss of a classifier of liked images whose logit is the reward beta g. shift (B,): the mean
    reward, without gradient. Jung et al. 2024, arXiv 2404.04656, for language models.
    """
    sign = 2 * liked - 1
    return -logsigmoid(sign * (beta * g - shift.detach()))


def balanced(liked: Tensor, g: Tensor) -> Tensor:
    """(mean g of liked + mean g of others) / 2; of one kind alone its mean."""
    means = [g[kind].mean() for kind in (liked > 0.5, liked < 0.5) if kind.any()]
    return torch.stack(means).mean()
