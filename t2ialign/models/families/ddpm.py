"""The latents of Stable Diffusion 1, 2 and XL: DDPM's 1000 noise levels, of which a time is one's number."""

import logging
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from t2ialign.diffusion.path import Kind
from t2ialign.diffusion.schedule import END, path_table, timesteps
from t2ialign.models.latents import Latents
from t2ialign.models.options import ModelOptions

log = logging.getLogger(__name__)

KINDS: dict[str, Kind] = {"epsilon": "eps", "v_prediction": "v"}


class DDPMLatents(Latents):
    """Noise levels 0 .. 999 of a scheduler's config; training draws them evenly."""

    end = float(END)

    def __init__(
        self, vae: Any, schedule: dict[str, Any], *, native_size: tuple[int, int], size_multiple: int
    ) -> None:
        super().__init__(vae, native_size=native_size, size_multiple=size_multiple)
        self.schedule, self.kind = schedule, KINDS[schedule["prediction_type"]]
        self.table = path_table(schedule).to(self.device)
        """alpha^2 of every level, and at END; (levels + 1,)"""
        self.num_train_timesteps = len(self.table) - 1

    def path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at t (B,), END = -1 included -> (B,) fp32 each."""
        alpha_squared = self.table[t.to(self.device).long()]
        return alpha_squared.sqrt(), (1 - alpha_squared).sqrt()

    def timesteps(self, num_inference_steps: int, size: tuple[int, int]) -> Tensor:
        """The sampling grid of the model's own scheduler config, fp32 (T + 1,); sizes change nothing.

        Raises ValueError for a number of steps that does not fit.
        """
        return timesteps(self.schedule, num_inference_steps).float()

    def draw_timesteps(self, u: Tensor) -> Tensor:
        """u (B,) uniform in [0, 1) -> levels 0 .. 999 as fp32 (B,), every one as likely, 999 at u = 0."""
        last = self.num_train_timesteps - 1
        return last - (u * self.num_train_timesteps).floor().clamp(0, last).float()

    def step_edges(self, num_inference_steps: int, size: tuple[int, int]) -> Tensor:
        """Even parts of all levels, fp64 (T + 1,), whichever of them the scheduler's spacing visits.

        Raises ValueError for a number of steps that does not fit.
        """
        levels = self.num_train_timesteps
        if not 1 <= num_inference_steps <= levels:
            raise ValueError(f"got num_inference_steps={num_inference_steps}; expected 1 to {levels}")
        parts = torch.arange(num_inference_steps + 1, dtype=torch.float64)
        return levels - 1 - parts * levels / num_inference_steps


def read_schedule(pipe: Any, options: ModelOptions) -> dict[str, Any]:
    """The pipeline's scheduler config with DDIM's defaults, after what `options` set in place of it.

    Raises ValueError on an unknown prediction type.
    """
    _override_scheduler(pipe, options)
    scheduler = pipe.scheduler
    config = dict(DDIMScheduler.from_config(scheduler.config).config)
    if config["prediction_type"] not in KINDS:
        raise ValueError(
            f"got prediction_type={config['prediction_type']!r}; expected one of {', '.join(KINDS)}"
        )
    if scheduler.config.get("clip_sample") or scheduler.config.get("thresholding"):
        log.warning(
            "the scheduler config clips x_0 as if it were pixels; latents are not, so it is not followed"
        )
    return config


def _override_scheduler(pipe: Any, options: ModelOptions) -> None:
    """Put the prediction type and the noise schedule that are set in place of the scheduler's.

    A schedule that ends in pure noise is sampled from its last step on, as diffusers advises ("trailing"):
    the "leading" grid of Stable Diffusion never visits that step.
    """
    changes: dict[str, Any] = {}
    if options.prediction_type is not None:
        changes["prediction_type"] = options.prediction_type
    if (zero_snr := options.rescale_betas_zero_snr) is not None:
        changes["rescale_betas_zero_snr"] = zero_snr
        if zero_snr:
            changes["timestep_spacing"] = "trailing"
    if changes:
        config = {**pipe.scheduler.config, "clip_sample": False, "thresholding": False, **changes}
        pipe.scheduler = DDIMScheduler.from_config(config)
