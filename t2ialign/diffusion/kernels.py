"""Reverse steps to choose from: each makes p(x_s | x_t) of the x_0 and eps that a network predicts.

With the true x_0 and eps, x_s has the mean alpha_s x_0 and the variance sigma_s^2: exactly for `ddim`, `cps`
and `ode`, to first order in the step for `flow_sde`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from t2ialign.diffusion.path import Kind
from t2ialign.diffusion.transition import Gaussian, reverse_step

KernelName = Literal["ddim", "flow_sde", "cps", "ode"]
"""ddim: DDIM with noise, any path. flow_sde: the SDE of Flow-GRPO, flow models only. cps:
coefficients-preserving sampling, any path. ode: no noise, any path."""

Path = tuple[Tensor, Tensor]
"""(alpha, sigma) at a time, broadcastable to latents."""


def _flow_sde_step(x_0: Tensor, eps: Tensor, path_t: Path, path_s: Path, a: float) -> Gaussian:
    """x + v dt is the flow's own step alpha_s x_0 + sigma_s eps, so the rest moves eps alone."""
    (_, sigma_t), (alpha_s, sigma_s) = path_t, path_s
    clean = 1 - torch.where(sigma_t >= 1, sigma_s, sigma_t)
    variance = a**2 * sigma_t / clean * (sigma_t - sigma_s)
    return Gaussian(alpha_s * x_0 + (sigma_s - variance / (2 * sigma_t)) * eps, variance.sqrt())


def _cps_step(x_0: Tensor, eps: Tensor, _: Path, path_s: Path, a: float) -> Gaussian:
    alpha_s, sigma_s = path_s
    angle = a * math.pi / 2
    return Gaussian(alpha_s * x_0 + sigma_s * math.cos(angle) * eps, sigma_s * math.sin(angle))


_STEPS: dict[str, Callable[[Tensor, Tensor, Path, Path, float], Gaussian]] = {
    "ddim": reverse_step,
    "ode": reverse_step,
    "flow_sde": _flow_sde_step,
    "cps": _cps_step,
}
_LETTERS = {"ddim": "eta", "ode": "eta", "flow_sde": "a", "cps": "a"}
_RANGES = {
    "ddim": (0.0, 1.0, "from 0 (deterministic) to 1 (DDPM)"),
    "ode": (0.0, 0.0, "of 0, since an ODE has no noise"),
    "flow_sde": (0.0, math.inf, "from 0 (deterministic) on, such as 0.7"),
    "cps": (0.0, 1.0, "from 0 (deterministic) to 1 (all noise fresh)"),
}


@dataclass(frozen=True)
class Kernel:
    """A reverse step of one kind with its amount of noise: eta of ddim, a of flow_sde and cps, 0 of ode.

    Raises ValueError for an unknown name, and for an amount out of the kind's range.
    """

    name: KernelName
    amount: float

    def __post_init__(self) -> None:
        if self.name not in get_args(KernelName):
            raise ValueError(
                f"got kernel {self.name!r}; expected one of {', '.join(get_args(KernelName))}; choose one"
            )
        low, high, words = _RANGES[self.name]
        if not low <= self.amount <= high:
            raise ValueError(f"got {_LETTERS[self.name]}={self.amount}; expected a number {words}")

    @property
    def noisy(self) -> bool:
        """Whether the step adds noise."""
        return self.amount > 0

    def __call__(self, x_0: Tensor, eps: Tensor, path_t: Path, path_s: Path) -> Gaussian:
        """p(x_s | x_t) of the predicted x_0 and eps (B, C, h, w)."""
        return _STEPS[self.name](x_0, eps, path_t, path_s, self.amount)

    def check(self, kind: Kind) -> None:
        """Raises ValueError for flow_sde on a network that predicts eps or v."""
        if self.name == "flow_sde" and kind != "flow":
            raise ValueError(
                f"got kernel=flow_sde for a model that predicts {kind}; expected a flow model; "
                "set kernel=ddim"
            )

    def __str__(self) -> str:
        return f"eta {self.amount:g}" if self.name == "ddim" else f"{self.name} {self.amount:g}"


def ddim(eta: float) -> Kernel:
    """DDIM: std = eta sigma_s sqrt(1 - (alpha_t sigma_s / (alpha_s sigma_t))^2), eta in [0, 1], 1 is DDPM.

    Song et al. 2021, eq. 12 and 16.
    """
    return Kernel("ddim", eta)


def flow_sde(a: float) -> Kernel:
    """The SDE whose marginals are the flow's, one Euler step of it; a from 0 on, 0.7 in the paper.

    mean = x + (v + g^2 / (2 sigma_t) eps) dt and std = g sqrt(-dt) with dt = sigma_s - sigma_t < 0 and
    g = a sqrt(sigma_t / (1 - sigma_t)); at sigma_t = 1 the denominator has sigma_s. A step into x_0 has noise
    too, so trainers leave it out. Liu et al. 2025 (Flow-GRPO, arXiv 2505.05470), as in its code.
    """
    return Kernel("flow_sde", a)


def cps(a: float) -> Kernel:
    """mean = alpha_s x_0 + sigma_s cos(a pi / 2) eps and std = sigma_s sin(a pi / 2), a in [0, 1].

    Coefficients-preserving sampling, of the code of Flow-GRPO. That code's log-probability is
    -mean (x_s - mean)^2, without the 1 / (2 std^2); here it is the density's, so its clip ranges do not carry
    over.
    """
    return Kernel("cps", a)


ODE = Kernel("ode", 0.0)
"""The deterministic step: DDIM's at eta = 0, which is Euler's on a flow's straight path."""
