"""One reverse step p(x_s | x_t) as a Gaussian, for any (alpha, sigma) path.

With std = eta sigma_s sqrt(1 - (alpha_t sigma_s / (alpha_s sigma_t))^2) the step is DDIM's (Song et al. 2021,
eq. 12 and 16) on the variance-preserving path, and it keeps the marginals of the rectified-flow path too.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from t2ialign.diffusion.path import fp32

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Gaussian(NamedTuple):
    """N(mean, std^2): mean (B, C, h, w), std (B, 1, 1, 1)."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Return mean + std * noise, (B, C, h, w)."""
        return self.mean + self.std * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of x (B, C, h, w) in fp32 (fp64 stays), the MEAN over C, h, w -> (B,).

        Published clip ranges and betas assume the mean (Black et al. 2024; Zhang et al. 2025). A row of zero
        std is deterministic: it has no density, carries no gradient, and counts 0.
        """
        mean, std = fp32(self.mean), fp32(self.std)
        random = std > 0
        safe = torch.where(
            random, std, torch.ones_like(std)
        )  # a NaN in the branch not taken would reach the gradient
        log_density = -0.5 * ((fp32(x) - mean) / safe).square() - safe.log() - HALF_LOG_2PI
        return torch.where(random, log_density, torch.zeros_like(log_density)).flatten(1).mean(1)


def reverse_step(
    x_0: Tensor, eps: Tensor, path_t: tuple[Tensor, Tensor], path_s: tuple[Tensor, Tensor], eta: float
) -> Gaussian:
    """p(x_s | x_t) from the predicted x_0 and eps (B, C, h, w).

    path_t, path_s: (alpha, sigma), broadcastable to x_0, at the current and at the less noisy time. eta: 0 is
    deterministic (DDIM, the flow ODE), 1 is ancestral (DDPM). Raises ValueError if eta is outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"got eta={eta}; expected a number from 0 (deterministic) to 1 (DDPM)")
    (alpha_t, sigma_t), (alpha_s, sigma_s) = path_t, path_s
    shrink = 1 - (alpha_t * sigma_s / (alpha_s * sigma_t)).square()
    std = eta * sigma_s * shrink.clamp_min(0).sqrt()
    mean = alpha_s * x_0 + (sigma_s.square() - std.square()).clamp_min(0).sqrt() * eps
    return Gaussian(mean, std)
