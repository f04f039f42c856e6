"""A model of two parameters: images are N(mean, 0.25) of two numbers, and its denoiser is exact.

What reinforcement learning should make of it is known: with the reward -|x - goal|^2, mean = goal.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from rewards import Reward
from t2ialign.diffusion.path import Kind
from t2ialign.models.base import Cond, Policy
from t2ialign.models.latents import Latents

SPREAD = 0.5
"""The standard deviation of the images."""
GOAL = (0.8, -0.6)
SCALE = 10.0
"""Numbers from -5 to 5 become pixels from 0 to 1."""


class Mean(ModelMixin, ConfigMixin):
    """The two parameters."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(2))

    def forward(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, kind: Kind) -> Tensor:
        mean = self.mean.view(1, 2, 1, 1)
        gain = alpha * SPREAD**2 / (alpha.square() * SPREAD**2 + sigma.square())
        x_0 = mean + gain * (x_t - alpha * mean)
        eps = (x_t - alpha * x_0) / sigma
        return eps if kind == "eps" else eps - x_0


class Numbers(Latents):
    """The path of either kind, and images of two numbers."""

    num_train_timesteps, end = 1000, 0.0

    def __init__(self, kind: Kind) -> None:
        self.kind, self.vae, self.device = kind, None, torch.device("cpu")
        self.channels, self.factor, self.native_size, self.size_multiple, self.largest = 2, 1, (1, 1), 1, None

    def path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = t / 1000 * (0.99 if self.kind == "eps" else 1)
        return ((1 - sigma.square()).sqrt() if self.kind == "eps" else 1 - sigma), sigma

    def timesteps(self, num_inference_steps: int, size: tuple[int, int]) -> Tensor:
        return torch.linspace(1000, 0, num_inference_steps + 1)

    def draw_timesteps(self, u: Tensor) -> Tensor:
        return 1000 * (1 - u)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.cat([latents, torch.zeros_like(latents[:, :1])], 1).div(SCALE).add(0.5).clamp(0, 1)


class TwoNumbers(Policy):
    """The policy; prompts change nothing."""

    component, save_class, lora_targets, default_guidance_scale = "transformer", "Mean", (), 1.0
    family, pipeline_class, source, schedule = "numbers", "TwoNumbers", "two numbers", {}

    def __init__(self, kind: Kind) -> None:
        self.adapted = self.net = Mean().requires_grad_(False)
        self.latents, self.loras = Numbers(kind), {}
        self.device, self.dtype = torch.device("cpu"), torch.float32

    @property
    def mean(self) -> Tensor:
        return self.adapted.mean.detach()

    @property
    def components(self) -> Mapping[str, Any]:
        return {}

    def predict(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        alpha, sigma = self.latents.shaped_path(t)
        return self.net(x_t, alpha, sigma, self.kind)

    def null_cond(self, cond: Cond) -> Cond:
        return cond

    def encode_prompts(self, prompts: Sequence[str]) -> Cond:
        return {"nothing": torch.zeros(len(prompts), 1)}

    def forget_prompts(self) -> None: ...

    def fingerprint(self) -> str:
        return "two numbers"

    @contextmanager
    def reference(self) -> Iterator[None]:
        net, self.net = self.net, self.frozen or copy.deepcopy(self.net)
        with torch.no_grad():
            yield
        self.net = net

    def checkpoint_gradients(self) -> None: ...

    def free_encoders(self, *, keep_decoder: bool = False, keep_prompts: Sequence[str] = ()) -> None: ...

    def convert_weights(self, dtype: torch.dtype) -> None: ...

    def save_pipeline(self, folder: Path) -> None: ...


class Nearness(Reward):
    """-|x - GOAL|^2 of the two numbers in an image."""

    differentiable, needs_text = True, False

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        assert isinstance(images, Tensor) and images.shape[1:] == (3, 1, 1)
        numbers = (images[:, :2, 0, 0] - 0.5) * SCALE
        return -(numbers - torch.tensor(GOAL)).square().sum(1)
