"""The DDPM noise grid, read from a diffusers scheduler config: tensors out, no scheduler state.

diffusers' DDIM steps from t to t - 1000 // T, which on a `linspace` or an uneven `trailing` grid is not the
next t of its own list, so the latent and the network disagree on the noise level. Here a step always ends at
the next t; on the grids of SD1.5, SD2.1 and SDXL (`leading`, or `trailing` where T divides 1000) the two are
the same.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

END = -1
"""The time after the last step: alpha is that of `set_alpha_to_one`, else of t = 0."""


def alphas_cumprod(config: Mapping[str, Any]) -> Tensor:
    """alpha_t^2 for t = 0 .. 999, fp32 with diffusers' own rounding. Raises ValueError on an unknown beta
    schedule.
    """
    betas = _betas(config)
    if config.get("rescale_betas_zero_snr", False):
        betas = _zero_terminal_snr(betas)
    return torch.cumprod(1.0 - betas, dim=0)


def path_table(config: Mapping[str, Any]) -> Tensor:
    """`alphas_cumprod` with the value at END appended, (1001,): `table[t]` is right for t = -1 too."""
    table = alphas_cumprod(config)
    final = torch.ones(1) if config.get("set_alpha_to_one", True) else table[:1]
    return torch.cat([table, final])


def timesteps(config: Mapping[str, Any], num_inference_steps: int) -> Tensor:
    """The sampling grid, long (T + 1,): noise first, END last. Raises ValueError if the grid does not fit."""
    total, spacing = int(config.get("num_train_timesteps", 1000)), config.get("timestep_spacing", "leading")
    offset = int(config.get("steps_offset", 0)) if spacing == "leading" else 0
    if not 1 <= num_inference_steps <= total:
        raise ValueError(
            f"got num_inference_steps={num_inference_steps}; expected 1 to {total} sampling steps"
        )
    index = torch.arange(num_inference_steps, dtype=torch.float64)
    if spacing == "leading":
        grid = (index * (total // num_inference_steps)).flip(0) + offset
    elif spacing == "trailing":
        grid = (total - index * (total / num_inference_steps)).round() - 1
    elif spacing == "linspace":
        grid = torch.linspace(0, total - 1, num_inference_steps, dtype=torch.float64).round().flip(0)
    else:
        raise ValueError(f"got timestep_spacing={spacing!r}; expected leading, trailing or linspace")
    if grid[0] >= total:
        raise ValueError(
            f"got num_inference_steps={num_inference_steps}; expected fewer, as "
            f"steps_offset={offset} passes t={total - 1}"
        )
    return torch.cat([grid.long(), torch.tensor([END])])


def _betas(config: Mapping[str, Any]) -> Tensor:
    """Noise added by each of the training steps, fp32 (1000,)."""
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=torch.float32)
    total, name = int(config.get("num_train_timesteps", 1000)), config.get("beta_schedule", "linear")
    start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    if name == "linear":
        return torch.linspace(start, end, total, dtype=torch.float32)
    if name == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, total, dtype=torch.float32) ** 2
    if name == "squaredcos_cap_v2":
        return _cosine_betas(total)
    raise ValueError(f"got beta_schedule={name!r}; expected linear, scaled_linear or squaredcos_cap_v2")


def _cosine_betas(total: int, largest: float = 0.999) -> Tensor:
    """Nichol and Dhariwal 2021, eq. 17, betas capped at `largest`."""

    def alpha_bar(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    ratios = [alpha_bar((i + 1) / total) / alpha_bar(i / total) for i in range(total)]
    return torch.tensor([min(1 - ratio, largest) for ratio in ratios], dtype=torch.float32)


def _zero_terminal_snr(betas: Tensor) -> Tensor:
    """Shift and scale sqrt(alpha_bar) so that it ends at 0, Lin et al. 2024, algorithm 1."""
    root = torch.cumprod(1.0 - betas, dim=0).sqrt()
    first, last = root[0].clone(), root[-1].clone()
    alpha_bar = ((root - last) * (first / (first - last))) ** 2
    return 1 - torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])
