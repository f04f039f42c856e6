"""The latents a model's network sees: images in and out of them, and how noise is added and taken away.

A time is a float, larger for more noise. Its unit is that of the timesteps of the family's diffusers
scheduler: 0 to 999 for Stable Diffusion 1, 2 and XL (DDPM's steps), 1000 sigma for flow models.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from t2ialign.diffusion.path import Kind, fp32


class Latents(ABC):
    """A family's noising path over the latents of one VAE of diffusers. Latents are (B, C, h, w)."""

    kind: Kind
    """The quantity that a network on this path predicts: eps, v or flow."""
    num_train_timesteps: int
    """Times lie in 0 .. num_train_timesteps; the scheduler's own count."""
    end: float
    """The time after the last step of sampling, at which the network is never called."""

    def __init__(
        self, vae: Any, *, native_size: tuple[int, int], size_multiple: int, largest: int | None = None
    ) -> None:
        self.vae = vae.requires_grad_(False)
        self.device: torch.device = vae.device
        self.channels = int(vae.config.latent_channels)
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.native_size, self.size_multiple, self.largest = native_size, size_multiple, largest

    @abstractmethod
    def path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) of x_t = alpha x_0 + sigma eps at t (B,), the end included -> (B,) fp32 each."""

    @abstractmethod
    def timesteps(self, num_inference_steps: int, size: tuple[int, int]) -> Tensor:
        """The sampling grid for images of (H, W) pixels, fp32 (T + 1,) on CPU, noise first, `end` last.

        Raises ValueError for a number of steps that does not fit.
        """

    @abstractmethod
    def draw_timesteps(self, u: Tensor) -> Tensor:
        """u (B,) uniform in [0, 1) -> training times (B,) in fp32; the noisiest at u = 0, never rising."""

    def step_edges(self, num_inference_steps: int, size: tuple[int, int]) -> Tensor:
        """The times (T + 1,), noise first, between which a noise level belongs to one of T sampling steps.

        Temporal discounting counts these steps. They are those of sampling, where a family says nothing else.
        """
        return self.timesteps(num_inference_steps, size)

    def without_empty_end(self, times: Tensor) -> Tensor:
        """A sampling grid (T + 1,) without the start of a last step that changes next to nothing.

        What is learnt from such a step is next to nothing too. No family but Stable Diffusion 3 has one.
        """
        return times

    def described(self, times: Tensor) -> str:
        """A sampling grid in words, for people."""
        return f"t {listed(times.tolist())}"

    def renoise(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t = alpha_t x_0 + sigma_t eps, fp32 (B, C, h, w); t (B,)."""
        alpha, sigma = self.shaped_path(t)
        return alpha * fp32(x_0) + sigma * fp32(eps)

    def shaped_path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`path`, shaped to multiply latents: (B, 1, 1, 1) each."""
        alpha, sigma = self.path(t)
        return alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of a height x width image. Raises ValueError for sides that do not divide or too long."""
        check_sides((height, width), self.size_multiple, self.largest)
        return self.channels, height // self.factor, width // self.factor

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
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
        self.shape(*images.shape[2:])
        low, high = images.aminmax()
        if not (low >= 0 and high <= 1):  # also catches NaN
            raise ValueError(f"got images from {low:.3g} to {high:.3g}; expected [0, 1]; rescale them first")
        posterior = self.vae.encode((2 * images - 1).to(self.device, self.vae.dtype)).latent_dist
        shift, scale = self._units()
        return (posterior.mean.float() - shift) * scale, posterior.std.float() * scale

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) -> images (B, 3, H, W) fp32 in [0, 1]; differentiable.

        Raises ValueError if the decoder was freed.
        """
        if self.vae is None:
            raise ValueError(
                "got latents after the decoder was freed; expected it kept; use keep_decoder=True"
            )
        shift, scale = self._units()
        raw = (latents.to(self.device) / scale + shift).to(self.vae.dtype)
        return (fp32(self.vae.decode(raw, return_dict=False)[0]) / 2 + 0.5).clamp(0, 1)

    def _units(self) -> tuple[Tensor | float, Tensor | float]:
        """(shift, scale) with scaled = (raw - shift) * scale; some SDXL VAEs whiten each channel."""
        config = self.vae.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is None or std is None:
            return float(config.get("shift_factor") or 0.0), float(config.scaling_factor)
        shift, spread = (torch.tensor(values, device=self.device).view(1, -1, 1, 1) for values in (mean, std))
        return shift, config.scaling_factor / spread

    def fingerprint(self) -> str:
        """A hash of some numbers of every weight of the VAE: whether two would encode images alike."""
        weights = hashlib.sha256()
        for parameter in self.vae.parameters():
            weights.update(parameter.detach().flatten()[:16].float().cpu().numpy().tobytes())
        return weights.hexdigest()[:16]

    def checkpoint_decoder(self) -> None:
        """Recompute the decoder's activations in the backward pass. Raises ValueError if it was freed."""
        if self.vae is None:
            raise ValueError("got a decoder that was freed; expected it kept; use keep_decoder=True")
        self.vae.enable_gradient_checkpointing()

    def free(self, *, keep_decoder: bool) -> None:
        """Drop the VAE from memory, all but its decoder if that is to stay."""
        if keep_decoder and self.vae is not None:
            self.vae.encoder = self.vae.quant_conv = None
        else:
            self.vae = None


def check_sides(sides: Sequence[int], multiple: int, largest: int | None = None) -> None:
    """Raises ValueError unless all sides of an image are multiples of so many pixels, and none is longer."""
    size = "x".join(map(str, sides))
    if any(side < multiple or side % multiple for side in sides):
        raise ValueError(f"got size {size}; expected both sides to be multiples of {multiple} pixels")
    if largest is not None and max(sides, default=0) > largest:
        raise ValueError(
            f"got size {size}; expected sides of up to {largest} pixels, for which the model has positions"
        )


def listed(numbers: Sequence[float], shown: int = 6) -> str:
    """Numbers to three digits, without those in the middle of a long list."""
    words = [f"{number:.3g}" for number in numbers]
    if len(words) > 2 * shown:
        words = [*words[:shown], "...", *words[-shown:]]
    return ", ".join(words)
