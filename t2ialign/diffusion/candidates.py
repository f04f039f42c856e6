"""Sampling that draws K candidates a step from one p(x_s | x_t), has them judged, and goes on from one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from t2ialign.diffusion.kernels import Kernel
from t2ialign.diffusion.sampler import Denoiser
from t2ialign.diffusion.transition import Gaussian

CandidateNoise = Callable[[int], Tensor]
"""Step index i -> the noise of that step's candidates, (B, K, C, h, w)."""
Choice = Callable[[int], Tensor]
"""Step index i -> which candidate each path goes on from, (B,) long."""


@dataclass(frozen=True)
class Step:
    """One step of B paths."""

    number: int
    """0 is the noisiest."""
    x_t: Tensor
    """(B, C, h, w)"""
    t: Tensor
    """(), the time"""
    s: Tensor
    """(), the less noisy time"""
    p: Gaussian
    """p(x_s | x_t) as sampled"""
    candidates: Tensor
    """(B, K, C, h, w), draws from it"""


def candidate_rollout(
    policy: Denoiser,
    cond: dict[str, Tensor],
    x_T: Tensor,
    times: Tensor,
    *,
    kernel: Kernel,
    guidance_scale: float,
    noise: CandidateNoise,
    choice: Choice,
) -> Iterator[Step]:
    """Denoise x_T (B, C, h, w), one forward a step, and yield each step with its candidates; no gradients.

    times: (T + 1,), noise first. On a step without noise all candidates are one state. The last yielded
    step's chosen candidate is the sample, which the caller reads off by `choice`.
    """
    x, times = x_T.float(), times.to(x_T.device)
    for i in range(len(times) - 1):
        with torch.no_grad():  # left before each yield: held across it, it would leak into the caller
            t, s = times[i], times[i + 1]
            p = policy.step(
                x, t.expand(len(x)), s.expand(len(x)), cond, kernel=kernel, guidance_scale=guidance_scale
            )
            candidates = p.mean[:, None] + p.std[:, None] * noise(i).to(x)
            step = Step(i, x, t, s, p, candidates)
            x = candidates[torch.arange(len(x), device=x.device), choice(i).to(x.device)]
        yield step
