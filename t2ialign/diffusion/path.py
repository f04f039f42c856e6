"""The noising path x_t = alpha_t x_0 + sigma_t eps, and what a network predicts on it.

`eps` and `v` live on the variance-preserving path (alpha^2 + sigma^2 = 1), `flow` on the straight one (alpha
+ sigma = 1).
"""

from typing import Literal, get_args

import torch
from torch import Tensor

Kind = Literal["eps", "v", "flow"]


def fp32(x: Tensor) -> Tensor:
    """x in fp32, in which all arithmetic on latents is done; fp64 stays, for checks by finite differences."""
    return x if x.dtype == torch.float64 else x.float()


def to_x0_eps(kind: Kind, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Turn a network's output at x_t into its (x_0, eps); alpha and sigma broadcast against x_t.

    v: Salimans and Ho 2022, appendix D. flow: Liu et al. 2023, u = eps - x_0. Raises ValueError on another
    kind.
    """
    if kind == "eps":
        return (x_t - sigma * out) / alpha, out
    if kind == "v":
        return alpha * x_t - sigma * out, sigma * x_t + alpha * out
    if kind == "flow":
        return x_t - sigma * out, x_t + alpha * out
    raise _unknown(kind)


def target(kind: Kind, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The target of the network at x_t = alpha x_0 + sigma eps. Raises ValueError on an unknown kind."""
    if kind == "eps":
        return eps
    if kind == "v":
        return alpha * eps - sigma * x_0
    if kind == "flow":
        return eps - x_0
    raise _unknown(kind)


def _unknown(kind: str) -> ValueError:
    return ValueError(
        f"got prediction kind {kind!r}; expected one of {', '.join(get_args(Kind))}; check the model's config"
    )
