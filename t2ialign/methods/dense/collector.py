"""Fills a round's store: sample on-policy paths, score them, keep some. Yang et al. 2024."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from torch import Tensor

from rewards import Reward
from rewards.failures import check_finite
from t2ialign.diffusion.kernels import Kernel
from t2ialign.diffusion.noise import normal_rows
from t2ialign.diffusion.sampler import rollout
from t2ialign.methods.dense import trajectories
from t2ialign.progress import Progress
from t2ialign.training.prompts import Prompts
from t2ialign.training.state import TrainState

if TYPE_CHECKING:
    from t2ialign.methods.dense.config import Config

PATH, PROMPT = 0, 1
"""First part of a random key: the noise of a path, the order of a round's prompts."""
START = -1
"""Step number of the first noise of a path."""


class Collector:
    """Paths as pure functions of (seed, round, group, path) and the weights, whatever process samples."""

    def __init__(
        self, cfg: Config, accelerator: Accelerator, state: TrainState, prompts: Prompts, reward: Reward
    ) -> None:
        self.cfg, self.accelerator, self.state = cfg, accelerator, state
        self.prompts, self.reward, self.policy = prompts, reward, prompts.policy
        self.kernel = Kernel(cfg.kernel, cfg.eta)
        self.times = self.policy.timesteps(cfg.num_inference_steps)
        self.shape = trajectories.Shape(
            prompts=cfg.collect_prompts,
            rollouts=cfg.rollouts,
            keep=cfg.keep,
            states=(cfg.num_inference_steps + 1, *self.policy.latent_shape(*self.policy.native_size)),
            dtype={"fp16": "float16", "fp32": "float32"}[cfg.store],
        )
        self.order = lru_cache(maxsize=2)(self._order)

    def fill(self, folder: Path, number: int, *, stopping: Callable[[], bool]) -> bool:
        """Sample a round into `folder`, chunks shared among processes -> False if told to stop first."""
        cfg, accelerator = self.cfg, self.accelerator
        if accelerator.is_main_process:
            trajectories.create(folder, self.shape)
        accelerator.wait_for_everyone()
        size = max(1, cfg.rollout_batch // cfg.rollouts)
        chunks = [range(i, min(i + size, cfg.collect_prompts)) for i in range(0, cfg.collect_prompts, size)]
        own_chunks = chunks[accelerator.process_index :: accelerator.num_processes]
        shown = Progress(own_chunks, desc=f"round {number}", delay=3, disable=not accelerator.is_main_process)
        return trajectories.collect(
            folder, self.shape, shown, lambda groups: self.paths(number, groups), stopping=stopping
        )

    @torch.no_grad()
    def paths(self, number: int, groups: range) -> tuple[Tensor, Tensor]:
        """States (g, M, T + 1, C, h, w) and rewards (g, M) of some groups of a round, on the CPU."""
        M = self.cfg.rollouts
        keys = [(PATH, self.cfg.seed, number, group, path) for group in groups for path in range(M)]
        texts = self.order(number)[list(groups)].repeat_interleave(M)

        def noise(step: int) -> Tensor:
            return normal_rows(self.shape.states[1:], [(*key, step) for key in keys])

        with self.state.unwrapped():
            x_T, cond = noise(START).to(self.policy.device), self.prompts.cond(texts)
            path = rollout(
                self.policy,
                cond,
                x_T,
                self.times,
                kernel=self.kernel,
                guidance_scale=self.cfg.guidance_scale,
                noise=noise,
            )
            images = self.policy.decode(path.latents[:, -1])
        texts_of = [self.prompts.texts[i] for i in texts.tolist()]
        scores = check_finite(self.cfg.reward, self.reward(images, texts_of), texts_of).detach()
        return path.latents.cpu().unflatten(0, (-1, M)), scores.float().cpu().view(-1, M)

    def _order(self, number: int) -> Tensor:
        """The prompt of each group of a round, (G,): every prompt once before any comes again."""
        return self.prompts.in_turn(self.cfg.collect_prompts, PROMPT, self.cfg.seed, number)
