"""Policy: one face for every model family. Latents are always (B, C, h, w), images (B, 3, H, W) in [0, 1]."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from t2ialign.diffusion.path import Kind, fp32, target, to_x0_eps
from t2ialign.diffusion.transition import Gaussian, reverse_step

Cond = dict[str, Tensor]
"""Encoded prompts; every value is batch-first, so `{k: v[idx] for k, v in cond.items()}` works for any model.
"""


class Policy(ABC):
    """A text-to-image model as a policy p(x_s | x_t, cond); not an nn.Module, so that only `net` is ever
    wrapped.
    """

    kind: Kind
    """What the network predicts."""
    net: nn.Module
    """The trained network as called; a trainer may replace it by its wrapped self."""
    device: torch.device
    dtype: torch.dtype
    """The precision the network computes in."""
    image_factor: int
    """Pixels per latent cell along one side: 8 for Stable Diffusion."""
    latent_channels: int
    native_size: tuple[int, int]
    """(H, W) in pixels the model was made for."""

    @abstractmethod
    def path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at t (B,) long, END = -1 included -> (B,) fp32 each."""

    @abstractmethod
    def times(self, num_steps: int) -> Tensor:
        """The sampling grid, long (T + 1,) on CPU, noise first, END last. Raises ValueError if it does not
        fit.
        """

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
    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [0, 1] -> mean and std of their scaled latents, fp32 (B, C, h, w) each."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) -> images (B, 3, H, W) fp32 in [0, 1]; differentiable."""

    @abstractmethod
    def reference(self) -> AbstractContextManager[None]:
        """Within this block the policy is the frozen reference, and nothing records gradients."""

    @abstractmethod
    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass: less memory, about a third more time."""

    @abstractmethod
    def checkpoint_decoder(self) -> None:
        """Recompute the decoder's activations in the backward pass."""

    @abstractmethod
    def free_encoders(self, *, keep_decoder: bool = False, keep_prompts: Sequence[str] = ()) -> None:
        """Drop the text encoders and the VAE from memory, all but the decoder and the prompts asked for."""

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

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of a height x width picture. Raises ValueError unless both divide by `image_factor`."""
        factor = self.image_factor
        if height % factor or width % factor or height < factor or width < factor:
            raise ValueError(
                f"got size {height}x{width}; expected both sides to be multiples of {factor} pixels"
            )
        return self.latent_channels, height // factor, width // factor

    def guided(self, x_t: Tensor, t: Tensor, cond: Cond, guidance: float) -> Tensor:
        """Classifier-free guidance on the raw output: one forward of 2B; B when guidance is 1. Ho and
        Salimans 2022.
        """
        if guidance == 1:
            return self.predict(x_t, t, cond)
        null = self.null_cond(cond)
        both = {name: torch.cat([null[name], value]) for name, value in cond.items()}
        empty, full = self.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
        return empty + guidance * (full - empty)

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, *, eta: float, guidance: float) -> Gaussian:
        """p(x_s | x_t, cond), fp32; t, s (B,). Song et al. 2021, eq. 12 and 16."""
        return self.transition(self.guided(x_t, t, cond, guidance), x_t, t, s, eta=eta)

    def transition(self, out: Tensor, x_t: Tensor, t: Tensor, s: Tensor, *, eta: float) -> Gaussian:
        """p(x_s | x_t), fp32, from the network's output (B, C, h, w) at x_t; its mean is linear in both."""
        path_t, path_s = self._path(t), self._path(s)
        x_0, eps = to_x0_eps(self.kind, out, fp32(x_t), *path_t)
        return reverse_step(x_0, eps, path_t, path_s, eta)

    def posterior_mean(self, out: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t] as the network's output (B, C, h, w) at x_t says it, fp32 (B, C, h, w)."""
        return to_x0_eps(self.kind, out, fp32(x_t), *self._path(t))[0]

    def renoise(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t = alpha_t x_0 + sigma_t eps, fp32 (B, C, h, w); t (B,)."""
        alpha, sigma = self._path(t)
        return alpha * fp32(x_0) + sigma * fp32(eps)

    def residual(self, x_0: Tensor, eps: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """Network output minus its target at x_t = alpha x_0 + sigma eps; t (B,) -> fp32 (B, C, h, w)."""
        x_0, eps = fp32(x_0), fp32(eps)
        return self.predict(self.renoise(x_0, eps, t), t, cond) - target(self.kind, x_0, eps, *self._path(t))

    def _path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`path`, shaped to multiply latents: (B, 1, 1, 1) each."""
        alpha, sigma = self.path(t)
        return alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
