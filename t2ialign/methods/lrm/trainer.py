"""A latent reward model from a diffusion model and preference pairs. Zhang et al., NeurIPS 2025 (LRM).

Images are resized to a square, as in the released code, and encoded once, into a cache of latents. A step
noises both latents of a pair to one timestep of the sampler's grid, with noise of their own, and a
Bradley-Terry loss moves the down and middle blocks, the text encoders and the projections. The VAE is frozen,
the up blocks are gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from rewards.latent import saved, untrained
from rewards.latent.lrm import LRM
from t2ialign.data.cache.comparisons import Compared, ComparisonCache
from t2ialign.data.transform import stretch
from t2ialign.diffusion.noise import Key, normal_rows, uniform_rows
from t2ialign.evaluation.calibrate import report
from t2ialign.methods.lrm.config import Config
from t2ialign.methods.reward.compared import ComparisonTrainer, finite
from t2ialign.methods.reward.reached import reached
from t2ialign.models.load import load_policy
from t2ialign.models.wrapped import loaded
from t2ialign.objectives.preference import bradley_terry, wins
from t2ialign.progress import Progress
from t2ialign.training import card, usage
from t2ialign.training.facts import Facts
from t2ialign.training.state import TrainState
from t2ialign.version import __version__

LEVEL, LATENT, NOISE = range(3)
"""Last part of a row's random key: its timestep, its draws from the image encoder, its noises."""


@dataclass(frozen=True)
class Batch:
    """Pairs of noisy latents, both sides of a pair at one timestep."""

    win: Tensor
    """(B, C, h, w)"""
    lose: Tensor
    """(B, C, h, w)"""
    t: Tensor
    """(B,) times"""
    compared: Compared
    """Prompts, preferences and weights."""


class Margin(nn.Module):
    """S(win) - S(lose) of noisy latents, from one forward of both."""

    def __init__(self, reward: LRM) -> None:
        super().__init__()
        self.reward = reward

    def forward(self, win: Tensor, lose: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        """Latents (B, C, h, w) of both sides, t (B,), B prompts -> (B,) fp32; prompts are encoded once."""
        text = {key: torch.cat([value, value]) for key, value in self.reward.encode_prompts(prompts).items()}
        scores = self.reward.score_encoded(torch.cat([win, lose]), t.repeat(2), text)
        first, second = scores.float().chunk(2)
        return first - second


class Trainer(ComparisonTrainer[Config, Batch]):
    """Trains all weights of the latent reward; the best by held-out accuracy are the result.

    policy: a loaded model, whose networks are taken over; else `cfg.model` is loaded.
    """

    method = "lrm"
    file = saved.WEIGHTS

    def __init__(self, cfg: Config, *, policy: Any = None) -> None:
        self._given = None if policy is None else loaded(policy)
        self.supplied |= {"model"} if policy is not None else frozenset()
        super().__init__(cfg)

    def load(self) -> TrainState:
        """An untrained latent reward of the diffusion model, and that model's latents."""
        cfg, device = self.cfg, self.accelerator.device
        policy = self._given or load_policy(cfg.model, device=device, sides=cfg.sides)
        self.latents, self.pipeline_class = policy.latents, policy.pipeline_class
        self.reward = untrained.from_networks(
            policy.components, guidance_scale=cfg.vfe, text_projection=cfg.text_projection, seed=cfg.seed
        ).to(device)
        side = cfg.resolution or min(policy.native_size)
        self.size = (side, side)
        self.shape = self.latents.shape(side, side)
        self.times = self.latents.timesteps(cfg.num_inference_steps, self.size)[:-1]
        self.net: nn.Module = Margin(self.reward)
        self.reward.requires_grad_(True)
        noise = normal_rows(self.shape, [(0, side) for side in range(2)]).to(device)
        trained = reached(self.reward, self.net(noise[:1], noise[1:], self.times[:1].to(device), ["a"]))
        return TrainState(cfg, self.accelerator, self, trained, self.write, often=False)

    def prepare(self, image: Image.Image) -> Tensor:
        """The image as a square, nothing cut off -> mean and std of its latent, (2, C, h, w) fp16."""
        pixels = stretch(image, self.size)[None].to(self.latents.device)
        mean, std = self.latents.encode(pixels)
        return torch.cat([mean, std]).half().cpu()

    def made_of(self) -> dict[str, Any]:
        """The size, how an image comes to it, and the image encoder."""
        return {"size": list(self.size), "resize": "bilinear", "vae": self.latents.fingerprint()}

    def batch(self, step: int, micro: int) -> Batch:
        """The pairs of this process's rows, a timestep each, drawn evenly from the sampler's grid."""
        keys = [(self.cfg.seed, step, row) for row in self.rows(micro)]
        u = uniform_rows([(*key, LEVEL) for key in keys])
        return self.noisy(self.compared(step, micro), self.times[(u * len(self.times)).long()], keys)

    def noisy(self, compared: Compared, t: Tensor, keys: Sequence[Key]) -> Batch:
        """Both latents drawn from the encoder's posterior and noised to t (B,), each with its own noise."""
        t, sides = t.to(self.latents.device), []
        for side, stored in enumerate((compared.win, compared.lose)):
            mean, std = stored.to(t.device).float().unbind(1)
            draw, eps = (
                normal_rows(self.shape, [(*key, kind, side) for key in keys]).to(t.device)
                for kind in (LATENT, NOISE)
            )
            sides.append(self.latents.renoise(mean + std * draw, eps, t))
        return Batch(sides[0], sides[1], t, compared)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the two-image softmax; its least value is 0 for every label."""
        compared = batch.compared
        margin = self.net(batch.win, batch.lose, batch.t, compared.prompts)
        losses = compared.weight * bradley_terry(margin, compared.preference)
        right = torch.where(compared.preference == 0.5, 0.5, wins(margin))
        return losses, {"accuracy": right, "margin": margin, "scale": self.reward.log_scale.exp()}

    @torch.no_grad()
    def measure(self, part: ComparisonCache) -> dict[str, float]:
        """Accuracy at each of `heldout_timesteps`, at noise that never changes; the first one's decides."""
        chunks = self.chosen(part)
        heldout: dict[str, float] = {}
        for place, t in enumerate(Progress(self.cfg.heldout_timesteps, desc="held-out timesteps", delay=3)):
            margin, preference, prompts = self.margins(part, chunks, t)
            figures = report(margin.numpy(), preference.numpy(), prompts, scale=1.0)
            heldout[f"heldout/accuracy_t{t:g}"] = figures["accuracy"].value
            if place == 0:
                heldout["heldout/accuracy"] = figures["accuracy"].value
                heldout["heldout/accuracy_low"] = figures["accuracy"].low
                heldout["heldout/accuracy_high"] = figures["accuracy"].high
                heldout["heldout/loss"] = float(bradley_terry(margin, preference).mean())
        return heldout

    @torch.no_grad()
    def margins(
        self, part: ComparisonCache, chunks: list[np.ndarray], t: float
    ) -> tuple[Tensor, Tensor, list[str]]:
        """S(win) - S(lose) of held-out pairs at time t, their preferences (N,), and their prompts."""
        rows = []
        for chunk in chunks:
            compared = part.batch(chunk).to(self.accelerator.device)
            keys = [(self.cfg.seed, int(t), int(row)) for row in chunk]
            batch = self.noisy(compared, torch.full((len(chunk),), float(t)), keys)
            rows.append((self.net(batch.win, batch.lose, batch.t, compared.prompts), compared.preference))
        margin, preference = (torch.cat(column).float().cpu() for column in zip(*rows, strict=True))
        return margin, preference, [part.prompt(int(row)) for chunk in chunks for row in chunk]

    def write(self, folder: Path, figures: dict[str, float] | None = None) -> Path:
        """The latent reward as `rewards.load("latent", path=folder)` loads it."""
        cfg = self.cfg
        about = {"model": cfg.model, "data": cfg.data, "step": self.state.step, "heldout": finite(figures)}
        return saved.save(self.reward, folder, {**about, "t2ialign": __version__})

    def facts(self) -> Facts:
        """The model whose blocks are trained, and the latents."""
        C, h, w = self.shape
        words = f"latent reward of {self.cfg.model} ({self.pipeline_class}), latent {C}x{h}x{w}"
        return replace(super().facts(), model=words)

    def write_card(self, metrics: dict[str, float]) -> None:
        """Write the model card: base and data, accuracy, and how to load the result."""
        card.write_scorer(
            self.cfg,
            reward=f"latent reward of {usage.shown(self.cfg.model)}",
            data=self.data_card(),
            dataset=self.dataset(),
            trained="down and middle blocks, text encoders, projections",
            metrics=metrics,
            load=usage.LATENT,
        )
