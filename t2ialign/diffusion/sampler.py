"""Sampling as a loop over p(x_s | x_t), for images and trajectories; gradients are in `backprop`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from t2ialign.diffusion.kernels import ODE, Kernel
from t2ialign.diffusion.transition import Gaussian

Noise = Callable[[int], Tensor]
"""Step index i -> the noise of that step, (B, C, h, w)."""


class Denoiser(Protocol):
    """The part of a model that the loop needs: one reverse step."""

    def step(
        self,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        cond: dict[str, Tensor],
        *,
        kernel: Kernel,
        guidance_scale: float,
    ) -> Gaussian:
        """p(x_s | x_t, cond) for x_t (B, C, h, w) and t, s (B,)."""
        ...


@dataclass(frozen=True)
class Trajectory:
    """A sampled path, under the policy that sampled it."""

    latents: Tensor
    """(B, T + 1, C, h, w), noise first, sample last"""
    log_probs: Tensor
    """(B, T), mean over C, h, w; 0 where the step is deterministic"""
    times: Tensor
    """(T + 1,), step i goes from times[i] to times[i + 1]"""


def rollout(
    policy: Denoiser,
    cond: dict[str, Tensor],
    x_T: Tensor,
    times: Tensor,
    *,
    kernel: Kernel,
    guidance_scale: float,
    noise: Noise | None = None,
    noisy: range | None = None,
) -> Trajectory:
    """Denoise x_T (B, C, h, w) and keep the whole path; nothing records gradients.

    times: (T + 1,), noise first. noise: needed by a kernel that adds some. noisy: the steps that add noise
    (all of them), the others being those of the ODE. Raises ValueError if noise is needed and missing.
    """
    latents, log_probs = [x_T.float()], []
    walk = _walk(
        policy,
        cond,
        x_T,
        times,
        kernel=kernel,
        guidance_scale=guidance_scale,
        noise=noise,
        noisy=noisy,
    )
    for p, x in walk:
        latents.append(x)
        log_probs.append(p.log_prob(x))
    return Trajectory(torch.stack(latents, 1), torch.stack(log_probs, 1), times)


def sample(
    policy: Denoiser,
    cond: dict[str, Tensor],
    x_T: Tensor,
    times: Tensor,
    *,
    kernel: Kernel,
    guidance_scale: float,
    noise: Noise | None = None,
) -> Tensor:
    """Denoise x_T (B, C, h, w) to x_0, keeping the current latent only; otherwise as `rollout`."""
    x_0 = x_T.float()
    for _, x in _walk(policy, cond, x_T, times, kernel=kernel, guidance_scale=guidance_scale, noise=noise):
        x_0 = x
    return x_0


def check_noise(noise: Noise | None, kernel: Kernel) -> None:
    """Raises ValueError if a stochastic sampler is given no noise."""
    if kernel.noisy and noise is None:
        raise ValueError(
            f"got the noisy kernel {kernel} and no noise; expected noise for a stochastic sampler; pass "
            "noise, or take the kernel ode"
        )


def _walk(
    policy: Denoiser,
    cond: dict[str, Tensor],
    x_T: Tensor,
    times: Tensor,
    *,
    kernel: Kernel,
    guidance_scale: float,
    noise: Noise | None,
    noisy: range | None = None,
) -> Iterator[tuple[Gaussian, Tensor]]:
    """Yield each step's distribution and the latent drawn from it, fp32."""
    check_noise(noise, kernel)
    x, times = x_T.float(), times.to(x_T.device)
    for i in range(len(times) - 1):
        with torch.no_grad():  # left before each yield: held across it, it would leak into the caller
            t, s = times[i].expand(len(x)), times[i + 1].expand(len(x))
            this = kernel if noisy is None or i in noisy else ODE
            p = policy.step(x, t, s, cond, kernel=this, guidance_scale=guidance_scale)
            x = p.sample(noise(i).to(x)) if noise is not None and this.noisy else p.mean
        yield p, x
