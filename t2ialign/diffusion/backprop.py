"""Sampling that a gradient passes: which steps of a path record, and the loop that follows such a plan.

The whole family differs only here (x is the latent, eps the network's output, T the number of steps):
DRaFT records every step, DRaFT-K the last K (Clark et al. 2024), AlignProp a random part (Prabhudesai et al.
2023), ReFL one late step whose posterior mean is decoded (Xu et al. 2023), DRTune spaced steps with the
network's input detached (Wu et al. 2024). A step that does not record runs the network without a graph, but
the linear path x_s = a x_t + b eps still carries the gradient of later steps to earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from t2ialign.diffusion.kernels import ODE, Kernel
from t2ialign.diffusion.path import fp32
from t2ialign.diffusion.sampler import Noise, check_noise
from t2ialign.diffusion.transition import Gaussian

Rule = Literal["all", "last", "mask", "uniform", "normal", "spaced"]
"""all: every step. last: the last k. mask: step i with probability (i + 1) / (T + 1), each drawn for itself.
uniform: the last K, K drawn from 1 .. T. normal: those from a cut on, int of a draw of N(0.84 T, (0.1 T)^2),
one of 1 .. T - 1. spaced: k at equal distances, from a random offset."""

CUT_MEAN, CUT_STD = 42 / 50, 5 / 50
"""Moments of the normal rule, as shares of T: AlignProp's rewrite draws N(42, 5) of 50 steps."""


class Differentiable(Protocol):
    """The parts of a model that the loop needs: guided output, reverse step, frozen reference."""

    def guided(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], guidance_scale: float) -> Tensor:
        """The network's output (B, C, h, w) at x_t (B, C, h, w), t (B,)."""
        ...

    def transition(self, out: Tensor, x_t: Tensor, t: Tensor, s: Tensor, *, kernel: Kernel) -> Gaussian:
        """p(x_s | x_t) from that output."""
        ...

    def posterior_mean(self, out: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t] from that output."""
        ...

    def renoise(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t of x_0 and eps."""
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Within this block the model is the frozen reference, and nothing records."""
        ...


@dataclass(frozen=True)
class Plan:
    """How one batch of paths of T steps is sampled."""

    recorded: tuple[bool, ...]
    """For each step that runs, noisiest first, whether the network's output records gradients."""
    posterior: bool = False
    """The result is the posterior mean at the last step that runs, not the sample after it."""
    detach_input: bool = False
    """The network sees x_t without its gradient: no product of Jacobians (DRTune)."""
    detach_before: int = 0
    """The latent loses its gradient before this step."""


def draw_plan(
    rule: Rule,
    num_inference_steps: int,
    *,
    k: int = 1,
    early_stop: int = 0,
    posterior: bool = False,
    detach_input: bool = False,
    detach_latent: int | None = None,
    generator: torch.Generator,
) -> Plan:
    """One draw of a rule over T = `num_inference_steps` steps.

    k: of `last` and `spaced`. early_stop: the path ends after one of its last so many steps, drawn evenly,
    and its posterior mean is the result; 0 runs all. detach_latent: cut the latent's gradient before the last
    so many steps that run. Raises ValueError if T < k, early_stop > T, or `normal` may run a single step.
    """
    if rule in ("last", "spaced") and not 1 <= k <= num_inference_steps - max(0, early_stop - 1):
        raise ValueError(
            f"got k={k} recorded steps of num_inference_steps={num_inference_steps} with "
            f"early_stop={early_stop}; expected 1 <= k <= the fewest steps that run; lower k "
            "or raise num_inference_steps"
        )
    if not 0 <= early_stop <= num_inference_steps:
        raise ValueError(
            f"got early_stop={early_stop}; expected 0 to "
            f"num_inference_steps={num_inference_steps}; it counts steps from the end"
        )
    if rule == "normal" and num_inference_steps - max(0, early_stop - 1) < 2:
        raise ValueError(
            f"got record=normal for num_inference_steps={num_inference_steps} with "
            f"early_stop={early_stop}; expected 2 steps or more that run, as the cut falls after "
            "the first; raise num_inference_steps"
        )
    dropped = _integer(early_stop, generator) if early_stop else 0
    runs = num_inference_steps - dropped
    recorded = _recorded(rule, runs, k, generator)
    before = 0 if detach_latent is None else max(0, runs - detach_latent)
    return Plan(tuple(recorded), posterior or early_stop > 0, detach_input, before)


def _recorded(rule: Rule, runs: int, k: int, generator: torch.Generator) -> list[bool]:
    if rule == "all":
        return [True] * runs
    if rule == "mask":  # torch.randint leaves its end out, as range does: u is one of 0 .. T
        recorded = [False]
        while not any(recorded):  # as rare as 1e-21 at T = 50, one update in a thousand at T = 8
            u = torch.randint(runs + 1, (runs,), generator=generator)
            recorded = [i >= int(u[i]) for i in range(runs)]
        return recorded
    if rule == "spaced":
        gap = runs / k
        offset = gap * float(torch.rand((), generator=generator))
        chosen = {int(offset + j * gap) for j in range(k)}
        return [i in chosen for i in range(runs)]
    if rule == "last":
        cut = runs - k
    elif rule == "uniform":  # K = 0 would be a step without a gradient
        cut = _integer(runs, generator)
    elif rule == "normal":
        cut = _normal_cut(runs, generator)
    else:
        raise ValueError(f"got rule {rule!r}; expected one of {', '.join(get_args(Rule))}")
    return [i >= cut for i in range(runs)]


def _integer(end: int, generator: torch.Generator) -> int:
    """Evenly from 0 .. end - 1."""
    return int(torch.randint(end, (), generator=generator))


def _normal_cut(runs: int, generator: torch.Generator) -> int:
    """One of 1 .. runs - 1: int of a draw, as in AlignProp's rewrite, which draws again outside of these."""
    while True:
        cut = int(CUT_MEAN * runs + CUT_STD * runs * float(torch.randn((), generator=generator)))
        if 1 <= cut < runs:
            return cut


Penalty = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(output, reference output, x_t, t, s) of a recorded step -> its penalty (B,)."""


def differentiable_sample(
    policy: Differentiable,
    cond: dict[str, Tensor],
    x_T: Tensor,
    times: Tensor,
    plan: Plan,
    *,
    kernel: Kernel,
    guidance_scale: float,
    noise: Noise | None = None,
    recompute: bool = True,
    penalty: Penalty | None = None,
) -> tuple[Tensor, Tensor]:
    """Denoise x_T (B, C, h, w) as the plan says -> x_0 with its graph, and the summed penalty (B,), fp32.

    recompute: a recorded step keeps its input only, and runs again in the backward pass, so that memory does
    not grow with T but by one latent a step. times, noise: as of `sample`. Raises ValueError like it.
    """
    check_noise(noise, kernel)
    x, times = fp32(x_T), times.to(x_T.device)
    costs = x.new_zeros(len(x))
    for i, records in enumerate(plan.recorded):
        t, s = times[i].expand(len(x)), times[i + 1].expand(len(x))
        if i == plan.detach_before:
            x = x.detach()
        seen = x.detach() if plan.detach_input else x
        with torch.set_grad_enabled(records and torch.is_grad_enabled()):
            out = _guided(policy, seen, t, cond, guidance_scale, recompute=records and recompute)
        if records and penalty is not None:
            with policy.reference():
                frozen = policy.guided(seen.detach(), t, cond, guidance_scale)
            costs = costs + penalty(out, frozen, seen.detach(), t, s)
        if plan.posterior and i == len(plan.recorded) - 1:
            x = policy.posterior_mean(out, x, t)
        else:
            p = policy.transition(out, x, t, s, kernel=kernel)
            x = p.sample(noise(i).to(x)) if noise is not None and kernel.noisy else p.mean
    return x, costs


def low_variance_sample(
    policy: Differentiable,
    cond: dict[str, Tensor],
    x_0: Tensor,
    times: Tensor,
    eps: Tensor,
    *,
    guidance_scale: float,
    recompute: bool = True,
    penalty: Penalty | None = None,
) -> tuple[Tensor, Tensor]:
    """DRaFT-LV: x_0 (B, C, h, w) noised n times to the last timestep by eps (n, B, C, h, w), each denoised in
    one recorded step -> (n B, C, h, w), sample-major like eps, and the penalty (n B,). Clark et al. 2024.
    """
    n, rows = eps.shape[:2]
    t = times[-2].to(x_0.device).expand(n * rows)
    x_t = policy.renoise(x_0.detach().repeat(n, 1, 1, 1), eps.flatten(0, 1), t)
    cond = {name: value.repeat(n, *[1] * (value.ndim - 1)) for name, value in cond.items()}
    return differentiable_sample(
        policy,
        cond,
        x_t,
        times[-2:],
        Plan((True,)),
        kernel=ODE,
        guidance_scale=guidance_scale,
        recompute=recompute,
        penalty=penalty,
    )


def _guided(
    policy: Differentiable,
    x: Tensor,
    t: Tensor,
    cond: dict[str, Tensor],
    guidance_scale: float,
    *,
    recompute: bool,
) -> Tensor:
    if not (recompute and torch.is_grad_enabled()):
        return policy.guided(x, t, cond, guidance_scale)
    # No dropout is active, so there is no random state to restore.
    out: Tensor = checkpoint(
        policy.guided, x, t, cond, guidance_scale, use_reentrant=False, preserve_rng_state=False
    )
    return out
