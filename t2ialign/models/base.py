"""Policy: one interface for every model family.

Latents are always (B, C, h, w), images (B, 3, H, W) in [0, 1]. All that the rest of the project knows of a
model is stated here: no other file reaches for its network, its VAE or its pipeline. Times are floats,
larger for more noise, in the unit of `models/latents.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from t2ialign.diffusion.kernels import Kernel
from t2ialign.diffusion.path import Kind, fp32, target, to_x0_eps
from t2ialign.diffusion.transition import Gaussian
from t2ialign.models.latents import Latents
from t2ialign.models.options import AS_IT_IS, ModelOptions

Cond = dict[str, Tensor]
"""Encoded prompts; every value is batch-first, so `{k: v[idx] for k, v in cond.items()}` works for any model.
"""


class Policy(ABC):
    """A text-to-image model as a policy p(x_s | x_t, cond); not an nn.Module, so that only `net` is ever
    wrapped.
    """

    component: ClassVar[str]
    """The network's name in a diffusers pipeline, in LoRA files and in folders: "unet" or "transformer"."""
    save_class: ClassVar[str]
    """The class of diffusers that reads the saved network back."""
    lora_targets: ClassVar[tuple[str, ...]]
    """Names of the layers that get a LoRA by default."""
    default_guidance_scale: ClassVar[float]
    """The guidance scale that the family's pipeline samples with by default."""

    family: str
    """A short name, such as "sdxl", on which defaults of settings may depend."""
    adapted: Any
    """The network of diffusers as loaded, an nn.Module: it gets the LoRA, or is trained whole."""
    net: nn.Module
    """The network as it is called; a trainer may replace it by its wrapped form."""
    latents: Latents
    """The VAE and the noising path."""
    pipeline_class: str
    """The class of diffusers that loads the whole model."""
    schedule: Mapping[str, Any]
    """The settings of the diffusers scheduler whose noise levels and steps these are."""
    source: str
    """The folder, file or Hub id the model was read from; the pipeline's class for one given in memory."""
    options: ModelOptions = AS_IT_IS
    """The options with which the model was read."""
    distilled: str | None = None
    """The sign that it is distilled to a few sampling steps; None without one."""
    untrainable: str | None = None
    """What it is, and what is expected in its place, if it cannot be trained; None if it can."""
    device: torch.device
    dtype: torch.dtype
    """The precision the network computes in."""
    autocast: bool = False
    """Whether the network holds fp32 weights (a LoRA's, or all) and computes in `dtype`."""
    frozen: nn.Module | None = None
    """The reference when all weights are trained; with LoRA the reference is the adapter switched off."""
    loras: dict[str, float]
    """Loaded LoRAs and their strengths."""

    @property
    @abstractmethod
    def components(self) -> Mapping[str, Any]:
        """The networks and tokenizers at hand, by their names in a diffusers pipeline."""

    @abstractmethod
    def predict(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The network's raw output at x_t (B, C, h, w), t (B,) -> fp32 (B, C, h, w)."""

    @abstractmethod
    def null_cond(self, cond: Cond) -> Cond:
        """The unconditional counterpart of cond, row for row (sizes kept, text emptied)."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Cond:
        """Encode B prompts; one too long for the window is warned about with what was cut. Raises ValueError
        if freed.
        """

    @abstractmethod
    def forget_prompts(self) -> None:
        """Encode the empty prompt again when it is next needed: the text encoders have changed."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the VAE and of every text encoder: whether two models would encode a data set alike."""

    @abstractmethod
    def reference(self) -> AbstractContextManager[None]:
        """Within this block the policy is the frozen reference, and nothing records gradients."""

    @abstractmethod
    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass: less memory, about a third more time."""

    @abstractmethod
    def free_encoders(self, *, keep_decoder: bool = False, keep_prompts: Sequence[str] = ()) -> None:
        """Drop the text encoders and the VAE from memory, all but the decoder and the prompts asked for."""

    @abstractmethod
    def convert_weights(self, dtype: torch.dtype) -> None:
        """Put every weight into that precision, the VAE's too: for writing, not for sampling."""

    @abstractmethod
    def save_pipeline(self, folder: Path) -> None:
        """Write the whole model as `pipeline_class` of diffusers loads it."""

    def with_size(
        self,
        cond: Cond,
        original: Tensor | tuple[int, int],
        crop: Tensor | tuple[int, int],
        target: Tensor | tuple[int, int],
    ) -> Cond:
        """Tell the model each image's size: original (H, W), crop's top left (y, x), target (H, W); tuple or
        (B, 2).

        Only SDXL listens (Podell et al. 2023, section 2.2); other families return cond as it is.
        """
        return cond

    def guided(self, x_t: Tensor, t: Tensor, cond: Cond, guidance_scale: float) -> Tensor:
        """The output that sampling and training follow at this guidance scale, fp32 (B, C, h, w).

        Here it is classifier-free guidance (Ho and Salimans 2022): one forward of 2B, whose first half has
        the prompts of `null_cond`, or of B when guidance is 1. A family that tells its network the scale
        (FLUX) overrides this; one that combines the two outputs otherwise overrides `combine`.
        """
        if guidance_scale == 1:
            return self.predict(x_t, t, cond)
        null = self.null_cond(cond)
        both = {name: torch.cat([null[name], value]) for name, value in cond.items()}
        empty, full = self.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
        return self.combine(empty, full, guidance_scale)

    def combine(self, empty: Tensor, full: Tensor, guidance_scale: float) -> Tensor:
        """The guided output of those without and with the prompt, (B, C, h, w) each."""
        return empty + guidance_scale * (full - empty)

    def step(
        self, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, *, kernel: Kernel, guidance_scale: float
    ) -> Gaussian:
        """p(x_s | x_t, cond), fp32; t, s (B,). Raises ValueError for a kernel that does not fit the path."""
        return self.transition(self.guided(x_t, t, cond, guidance_scale), x_t, t, s, kernel=kernel)

    def transition(self, out: Tensor, x_t: Tensor, t: Tensor, s: Tensor, *, kernel: Kernel) -> Gaussian:
        """p(x_s | x_t), fp32, from the network's output (B, C, h, w) at x_t; its mean is linear in both.

        Raises ValueError for a kernel that does not fit the path.
        """
        kernel.check(self.kind)
        path_t, path_s = self.latents.shaped_path(t), self.latents.shaped_path(s)
        x_0, eps = to_x0_eps(self.kind, out, fp32(x_t), *path_t)
        return kernel(x_0, eps, path_t, path_s)

    def posterior_mean(self, out: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t] as the network's output (B, C, h, w) at x_t says it, fp32 (B, C, h, w)."""
        return to_x0_eps(self.kind, out, fp32(x_t), *self.latents.shaped_path(t))[0]

    def residual(self, x_0: Tensor, eps: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """Network output minus its target at x_t = alpha x_0 + sigma eps; t (B,) -> fp32 (B, C, h, w)."""
        x_0, eps = fp32(x_0), fp32(eps)
        out = self.predict(self.renoise(x_0, eps, t), t, cond)
        return out - target(self.kind, x_0, eps, *self.latents.shaped_path(t))

    # Properties of the latents, for callers that have a policy.

    @property
    def kind(self) -> Kind:
        """The quantity that the network predicts: eps, v or flow."""
        return self.latents.kind

    @property
    def num_train_timesteps(self) -> int:
        """Times lie in 0 .. num_train_timesteps."""
        return self.latents.num_train_timesteps

    @property
    def end(self) -> float:
        """The time after the last step of sampling."""
        return self.latents.end

    @property
    def image_factor(self) -> int:
        """Pixels per latent cell along one side: 8 for Stable Diffusion."""
        return self.latents.factor

    @property
    def size_multiple(self) -> int:
        """The divisor of both sides of an image, in pixels."""
        return self.latents.size_multiple

    @property
    def latent_channels(self) -> int:
        """C."""
        return self.latents.channels

    @property
    def native_size(self) -> tuple[int, int]:
        """(H, W) in pixels the model was made for."""
        return self.latents.native_size

    def path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at t (B,), the end included -> (B,) fp32 each."""
        return self.latents.path(t)

    def timesteps(self, num_inference_steps: int, size: tuple[int, int] | None = None) -> Tensor:
        """The sampling grid for images of (H, W) pixels (the model's own), fp32 (T + 1,), noise first.

        Raises ValueError for a number of steps that does not fit.
        """
        return self.latents.timesteps(num_inference_steps, size or self.native_size)

    def without_empty_end(self, times: Tensor) -> Tensor:
        """A sampling grid (T + 1,) without the start of a last step that changes next to nothing."""
        return self.latents.without_empty_end(times)

    def draw_timesteps(self, u: Tensor) -> Tensor:
        """u (B,) uniform in [0, 1) -> training times (B,), the noisiest at u = 0."""
        return self.latents.draw_timesteps(u)

    def step_edges(self, num_inference_steps: int, size: tuple[int, int] | None = None) -> Tensor:
        """The times (T + 1,) between which a noise level belongs to one of T sampling steps."""
        return self.latents.step_edges(num_inference_steps, size or self.native_size)

    def renoise(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t = alpha_t x_0 + sigma_t eps, fp32 (B, C, h, w); t (B,)."""
        return self.latents.renoise(x_0, eps, t)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of a height x width image. Raises ValueError unless both divide by `size_multiple`."""
        return self.latents.shape(height, width)

    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [0, 1] -> mean and std of their scaled latents, fp32 (B, C, h, w) each."""
        return self.latents.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) -> images (B, 3, H, W) fp32 in [0, 1]; differentiable."""
        return self.latents.decode(latents)

    def checkpoint_decoder(self) -> None:
        """Recompute the decoder's activations in the backward pass."""
        self.latents.checkpoint_decoder()
