"""Stable Diffusion 1 and 2 (eps and v) as a policy, on top of diffusers' own networks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from t2ialign.diffusion.path import fp32
from t2ialign.models.base import Cond, Policy
from t2ialign.models.families import clip_text
from t2ialign.models.families.ddpm import DDPMLatents, read_schedule
from t2ialign.models.lora_targets import ATTENTION
from t2ialign.models.options import AS_IT_IS, ModelOptions
from t2ialign.models.pipeline import PipelinePolicy
from t2ialign.models.single.layout import family_of


class UNetPolicy(PipelinePolicy):
    """StableDiffusionPipeline as a policy. Raises ValueError for a network or a schedule it cannot train."""

    component, save_class, lora_targets = "unet", "UNet2DConditionModel", ATTENTION
    default_guidance_scale = 7.5
    latents: DDPMLatents

    def __init__(
        self, pipe: Any, *, dtype: torch.dtype = torch.float32, options: ModelOptions = AS_IT_IS
    ) -> None:
        schedule, factor = read_schedule(pipe, options), 2 ** (len(pipe.vae.config.block_out_channels) - 1)
        cells = pipe.unet.config.sample_size
        rows, columns = (cells, cells) if isinstance(cells, int) else cells
        size = (rows * factor, columns * factor)
        latents = DDPMLatents(pipe.vae, schedule, native_size=size, size_multiple=factor)
        super().__init__(pipe, latents, dtype=dtype, options=options)
        self.family, self.schedule = family_of(pipe), schedule
        self._check(pipe.unet.config)

    def _check(self, config: Any) -> None:
        if config.in_channels != self.latents.channels:
            raise ValueError(
                f"got a UNet of {config.in_channels} input channels; expected "
                f"{self.latents.channels}, as the VAE has; inpainting and depth are not supported"
            )
        if config.time_cond_proj_dim is not None:
            raise ValueError(
                "got a guidance-distilled (LCM) UNet; expected a plain one; use the model it came from"
            )
        if self.kind == "eps" and self.latents.table[:-1].min() <= 0:
            raise ValueError(
                "got eps prediction on a zero-terminal-SNR grid; expected v prediction; set "
                "prediction_type=v_prediction, or rescale_betas_zero_snr=false, as the model was trained"
            )

    @property
    def unet(self) -> Any:
        """The U-Net."""
        return self.adapted

    @property
    def vae(self) -> Any:
        """The VAE, or its decoder alone once the encoder is freed."""
        return self.latents.vae

    @property
    def prediction_type(self) -> str:
        """The name in diffusers of `kind`."""
        return str(self.schedule["prediction_type"])

    def predict(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The UNet's raw output at x_t (B, C, h, w), t (B,) -> fp32 (B, C, h, w)."""
        with self.precision():
            out = self.network(
                x_t.to(self.device, self.dtype),
                t.to(self.device).long(),
                encoder_hidden_states=cond["prompt_embeds"].to(self.device, self.dtype),
                added_cond_kwargs=self._added(cond),
                return_dict=False,
            )[0]
        return fp32(out)

    def _added(self, cond: Cond) -> dict[str, Tensor] | None:
        """Further conditioning of the UNet besides the prompt: none here."""
        return None

    def _warn_if_cut(self, prompts: Sequence[str]) -> None:
        tokenizer = self.pipe.tokenizer
        clip_text.warn_if_cut(tokenizer, prompts, clip_text.window(tokenizer, self.pipe.text_encoder))

    def _encode(self, prompts: Sequence[str], clip_skip: int | None) -> Cond:
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        return {"prompt_embeds": clip_text.encode_one(tokenizer, encoder, prompts, clip_skip)}


PIPELINES: dict[str, type[Policy]] = {"StableDiffusionPipeline": UNetPolicy}
