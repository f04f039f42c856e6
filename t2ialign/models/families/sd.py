"""Stable Diffusion 1 and 2 (eps and v) as a policy, on top of diffusers' own networks."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from t2ialign.diffusion.path import Kind, fp32
from t2ialign.diffusion.schedule import path_table, timesteps
from t2ialign.models import text
from t2ialign.models.adapters import adapters_off
from t2ialign.models.base import Cond, Policy
from t2ialign.models.options import ModelOptions
from t2ialign.models.original_layout import family_of

log = logging.getLogger(__name__)

KINDS: dict[str, Kind] = {"epsilon": "eps", "v_prediction": "v"}


class UNetPolicy(Policy):
    """StableDiffusionPipeline as a policy. Raises ValueError for a network or a schedule it cannot train."""

    def __init__(
        self, pipe: Any, *, dtype: torch.dtype = torch.float32, clip_skip: int | None = None
    ) -> None:
        self.pipe, self.unet, self.vae = pipe, pipe.unet.requires_grad_(False), pipe.vae.requires_grad_(False)
        self.net: nn.Module = self.unet
        self.device, self.dtype = self.unet.device, dtype
        self.autocast = False
        """Whether the network holds fp32 weights (LoRA, or all) and computes in `dtype`."""
        self.frozen: nn.Module | None = None
        """The reference when all weights are trained; with LoRA the reference is the adapter switched off."""
        self.family = family_of(pipe)
        self.clip_skip = clip_skip
        """How many of the last text encoder layers are left out, as diffusers counts."""
        self.options = ModelOptions(clip_skip=clip_skip)
        """How the model was read, where that was set."""
        self.file: Path | None = None
        """The single file it was read from, if it was."""
        self.distilled: str | None = None
        """Why it seems to be distilled to a few sampling steps, if it does."""
        self.loras: dict[str, float] = {}
        """Loaded LoRAs and their strengths."""
        self._stand_in: nn.Module | None = None
        self._null: Cond | None = None
        self._kept: dict[str, Cond] = {}
        self.schedule = _schedule(pipe)
        self.prediction_type: str = self.schedule["prediction_type"]
        self.kind = KINDS[self.prediction_type]
        self.table = path_table(self.schedule).to(self.device)
        self._check()
        self.image_factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.latent_channels = int(self.unet.config.in_channels)
        size = self.unet.config.sample_size
        rows, columns = (size, size) if isinstance(size, int) else size
        self.native_size = (rows * self.image_factor, columns * self.image_factor)

    def _check(self) -> None:
        config = self.unet.config
        if config.in_channels != self.vae.config.latent_channels:
            raise ValueError(
                f"got a UNet of {config.in_channels} input channels; expected "
                f"{self.vae.config.latent_channels}, as the VAE has; inpainting and depth are not supported"
            )
        if config.time_cond_proj_dim is not None:
            raise ValueError(
                "got a guidance-distilled (LCM) UNet; expected a plain one; use the model it came from"
            )
        if self.kind == "eps" and self.table[:-1].min() <= 0:
            raise ValueError(
                "got eps prediction on a zero-terminal-SNR grid; expected v prediction; set "
                "prediction_type=v_prediction, or rescale_betas_zero_snr=false, as the model was trained"
            )

    def path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at t (B,) long, END = -1 included -> (B,) fp32 each."""
        alpha_squared = self.table[t.to(self.device)]
        return alpha_squared.sqrt(), (1 - alpha_squared).sqrt()

    def times(self, num_steps: int) -> Tensor:
        """The sampling grid of the model's own scheduler config, long (T + 1,). Raises ValueError if it does
        not fit.
        """
        return timesteps(self.schedule, num_steps)

    def predict(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The UNet's raw output at x_t (B, C, h, w), t (B,) -> fp32 (B, C, h, w)."""
        with self._precision():
            out = (self._stand_in or self.net)(
                x_t.to(self.device, self.dtype),
                t.to(self.device),
                encoder_hidden_states=cond["prompt_embeds"].to(self.device, self.dtype),
                added_cond_kwargs=self._added(cond),
                return_dict=False,
            )[0]
        return fp32(out)

    def _precision(self) -> AbstractContextManager[Any]:
        mixed = self.autocast and self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype) if mixed else nullcontext()

    def _added(self, cond: Cond) -> dict[str, Tensor] | None:
        """What the UNet wants besides the prompt: nothing here."""
        return None

    def null_cond(self, cond: Cond) -> Cond:
        """The encoding of "" for every row of cond; no layer is skipped for it, as in diffusers."""
        if self._null is None:
            self._null = self._encode([""], None)
        return {name: self._null[name].expand_as(value).to(value) for name, value in cond.items()}

    def encode_prompts(self, prompts: Sequence[str]) -> Cond:
        """B prompts -> {"prompt_embeds": (B, positions, width)}; warns of what was cut. Raises ValueError if
        freed.
        """
        if not prompts:
            raise ValueError("got no prompts; expected at least one")
        if self.pipe.text_encoder is not None:
            text.warn_if_cut(
                self.pipe.tokenizer, prompts, text.window(self.pipe.tokenizer, self.pipe.text_encoder)
            )
            return self._encode(prompts, self.clip_skip)
        if missing := [prompt for prompt in prompts if prompt not in self._kept]:
            raise ValueError(
                f"got prompt {missing[0]!r} after the text encoders were freed; expected a kept prompt; "
                "pass it to free_encoders(keep_prompts=...)"
            )
        rows = [self._kept[prompt] for prompt in prompts]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def _encode(self, prompts: Sequence[str], clip_skip: int | None) -> Cond:
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        return {"prompt_embeds": text.encode_one(tokenizer, encoder, prompts, clip_skip)}

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [0, 1] -> mean and std of the scaled latents, fp32 (B, C, h, w).

        Raises ValueError for another shape, a range beyond [0, 1], sides that do not divide, or a freed
        encoder.
        """
        if self.vae is None or self.vae.encoder is None:
            raise ValueError(
                "got images after the image encoder was freed; expected cached latents; reload the model"
            )
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"got images of shape {tuple(images.shape)}; expected (B, 3, H, W)")
        self.latent_shape(*images.shape[2:])
        low, high = images.aminmax()
        if not (low >= 0 and high <= 1):  # also catches NaN
            raise ValueError(f"got images from {low:.3g} to {high:.3g}; expected [0, 1]; rescale them first")
        posterior = self.vae.encode((2 * images - 1).to(self.device, self.vae.dtype)).latent_dist
        shift, scale = self._latent_units()
        return (posterior.mean.float() - shift) * scale, posterior.std.float() * scale

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) -> images (B, 3, H, W) fp32 in [0, 1]; differentiable. Raises
        ValueError if freed.
        """
        if self.vae is None:
            raise ValueError(
                "got latents after the decoder was freed; expected it kept; use keep_decoder=True"
            )
        shift, scale = self._latent_units()
        pixels = self.vae.decode(
            (latents.to(self.device) / scale + shift).to(self.vae.dtype), return_dict=False
        )[0]
        return (fp32(pixels) / 2 + 0.5).clamp(0, 1)

    def _latent_units(self) -> tuple[Tensor | float, Tensor | float]:
        """(shift, scale) with scaled = (raw - shift) * scale; some SDXL VAEs whiten each channel."""
        config = self.vae.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is None or std is None:
            return 0.0, float(config.scaling_factor)
        shift, spread = (torch.tensor(values, device=self.device).view(1, -1, 1, 1) for values in (mean, std))
        return shift, config.scaling_factor / spread

    def forget_prompts(self) -> None:
        """Encode the empty prompt again when it is next needed: the text encoders have changed."""
        self._null = None

    @contextmanager
    def reference(self) -> Iterator[None]:
        """The frozen copy, or the network with its adapters off; nothing records gradients."""
        before, self._stand_in = self._stand_in, self.frozen or self.unet
        try:
            with torch.no_grad(), adapters_off(self.unet):
                yield
        finally:
            self._stand_in = before

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass: less memory, about a third more time."""
        self.unet.enable_gradient_checkpointing()

    def checkpoint_decoder(self) -> None:
        """Recompute the decoder's activations in the backward pass. Raises ValueError if freed."""
        if self.vae is None:
            raise ValueError("got a decoder that was freed; expected it kept; use keep_decoder=True")
        self.vae.enable_gradient_checkpointing()

    def free_encoders(self, *, keep_decoder: bool = False, keep_prompts: Sequence[str] = ()) -> None:
        """Drop the text encoders and the VAE; "" and `keep_prompts` stay encoded."""
        for prompt in dict.fromkeys(["", *keep_prompts]):
            self._kept[prompt] = self.encode_prompts([prompt])
        self.null_cond(self._kept[""])
        for name in ("text_encoder", "text_encoder_2"):
            if name in self.pipe.components:
                setattr(self.pipe, name, None)
        if keep_decoder and self.vae is not None:
            self.vae.encoder = self.vae.quant_conv = None
        else:
            self.vae = self.pipe.vae = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _schedule(pipe: Any) -> dict[str, Any]:
    """The scheduler's config with DDIM's defaults. Raises ValueError on an unknown prediction type."""
    config = dict(DDIMScheduler.from_config(pipe.scheduler.config).config)
    if config["prediction_type"] not in KINDS:
        raise ValueError(
            f"got prediction_type={config['prediction_type']!r}; expected one of {', '.join(KINDS)}"
        )
    if pipe.scheduler.config.get("clip_sample") or pipe.scheduler.config.get("thresholding"):
        log.warning(
            "the scheduler config clips x_0 as if it were pixels; latents are not, so it is not followed"
        )
    return config
