"""The latents of flow models: a straight path from image to noise, on the grid of diffusers' scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from t2ialign.models.latents import Latents, listed

EMPTY = 0.02
"""A last step of sampling from less noise than this changes next to nothing."""


class FlowLatents(Latents):
    """x_t = (1 - sigma) x_0 + sigma eps, and a time is 1000 sigma. Esser et al. 2024.

    patch: latent cells along one side of a token. even: whether the pipeline gives the scheduler T even
    values of sigma from 1 to 1 / T before they are shifted (FLUX, Z-Image). Without, the scheduler shifts its
    own range, which is shifted already (SD3): at shift 3 the last step then starts at sigma = .0089.

    Raises ValueError for another scheduler.
    """

    kind, end = "flow", 0.0

    def __init__(
        self,
        vae: Any,
        scheduler: Any,
        *,
        native_size: tuple[int, int],
        patch: int,
        even: bool = False,
        largest: int | None = None,
    ) -> None:
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        super().__init__(vae, native_size=native_size, size_multiple=factor * patch, largest=largest)
        if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            raise ValueError(
                f"got a {type(scheduler).__name__} for a flow model; expected "
                "FlowMatchEulerDiscreteScheduler; restore the scheduler that the model was released with"
            )
        self.config: Mapping[str, Any] = dict(scheduler.config)
        self.num_train_timesteps = int(self.config["num_train_timesteps"])
        self.patch, self.even = patch, even

    def path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(1 - sigma, sigma) at t (B,) -> (B,) fp32 each."""
        sigma = t.to(self.device).float() / self.num_train_timesteps
        return 1 - sigma, sigma

    def timesteps(self, num_inference_steps: int, size: tuple[int, int]) -> Tensor:
        """The grid of the family's pipeline for images of (H, W) pixels, fp32 (T + 1,), 0 last.

        Raises ValueError for a number of steps that does not fit.
        """
        if not 1 <= num_inference_steps <= self.num_train_timesteps:
            raise ValueError(
                f"got num_inference_steps={num_inference_steps}; expected 1 to {self.num_train_timesteps}"
            )
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.config)
        sigmas = torch.linspace(1, 1 / num_inference_steps, num_inference_steps).tolist()
        scheduler.set_timesteps(
            num_inference_steps, sigmas=sigmas if self.even else None, mu=self.log_shift(size)
        )
        return torch.cat([scheduler.timesteps.cpu(), torch.zeros(1)])

    def without_empty_end(self, times: Tensor) -> Tensor:
        """A grid (T + 1,) whose last step starts at sigma = .02 or more; SD3's own starts at .0089.

        From there to 0 a velocity counts a thirtieth of what it does over the step before, at ten steps.
        """
        if len(times) > 2 and float(self.path(times[-2:-1])[1]) < EMPTY:
            return torch.cat([times[:-2], times[-1:]])
        return times

    def described(self, times: Tensor) -> str:
        """The values of sigma of a grid, in words."""
        return f"sigma {listed(self.path(times)[1].tolist())}"

    def log_shift(self, size: tuple[int, int]) -> float | None:
        """mu of images of (H, W) pixels, linear in their number of tokens; None where the shift is fixed."""
        if not self.config.get("use_dynamic_shifting"):
            return None
        low, high = (float(self.config[f"{end}_shift"]) for end in ("base", "max"))
        fewest, most = (int(self.config[f"{end}_image_seq_len"]) for end in ("base", "max"))
        _, rows, columns = self.shape(*size)
        tokens = rows * columns // self.patch**2
        return low + (high - low) * (tokens - fewest) / (most - fewest)

    def draw_timesteps(self, u: Tensor) -> Tensor:
        """A logit-normal level, shifted where the shift is fixed, as diffusers' training scripts do."""
        base, shift = torch.sigmoid(-torch.special.ndtri(u)), float(self.config["shift"])
        if self.config.get("use_dynamic_shifting"):
            shift = 1.0
        return (self.num_train_timesteps * shift * base / (1 + (shift - 1) * base)).float()
