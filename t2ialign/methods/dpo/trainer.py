"""Diffusion-DPO on pairs of images, with temporal discounting and a safeguard for the winner.

Wallace et al. 2024 (Diffusion-DPO); Yang et al. 2024 (discounting); arXiv 2511.03317 (Diffusion-SDPO). One
forward of the policy and one of the reference on 2B latents a step: images and prompts are encoded once, into
a cache, and the reference is the adapter switched off.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2ialign import objectives
from t2ialign.data.cache.build import build_cache
from t2ialign.data.cache.stored import PairCache, cached_widths
from t2ialign.data.pairs import read_pairs
from t2ialign.data.skipped import skipping
from t2ialign.data.sources import identity
from t2ialign.diffusion.noise import Key
from t2ialign.methods.dpo.config import Config
from t2ialign.methods.dpo.heldout import HeldOut
from t2ialign.methods.dpo.loss import (
    LATENT,
    Batch,
    discount_weight,
    draw,
    drop_captions,
    reference_free_loss,
    reference_loss,
)
from t2ialign.methods.dpo.remembered import Place, RememberedErrors, draws
from t2ialign.models.ahead import Ahead
from t2ialign.objectives.preference import mean_square
from t2ialign.objectives.weighting import Discount
from t2ialign.training import base
from t2ialign.training.conversion import FLOW, SD, SDXL, Published
from t2ialign.training.facts import Facts

AGAIN = -1
"""Last part of the key of a draw that comes again, whose first parts are seed, pair and draw."""
FLOW_BETA = 2000.0
"""Flow-Factory's beta for flow models, whose error is that of the velocity."""
LEAST_MARGIN = 0.0025
"""The mean margin of the first tenth of a run, at the published beta. If it rises evenly it ends at 20 times
that, 0.05, where sigmoid(margin) is 0.51: for such a policy winner and loser are as alike as for the
reference. The noise of a margin shrinks with the margin, so a standard error alone never tells that a run
hardly moves."""


class Trainer(base.Trainer[Config, Batch]):
    """Trains on the pairs of `cfg.data`, or on an already built cache of them."""

    method = "dpo"
    images_per_row = 2

    def __init__(self, cfg: Config, *, policy: Any = None, cache: PairCache | None = None) -> None:
        self._given = cache
        self.supplied |= {"data"} if cache is not None else frozenset()
        super().__init__(cfg, policy=policy)

    def look_ahead(self, model: Ahead) -> None:
        """Raises ValueError also for a cache that is there and of no such prompts or latents."""
        super().look_ahead(model)
        folder = self.cfg.cache or self.cfg.output / "cache"
        if self._given is None and (widths := cached_widths(folder)) is not None:
            model.check_cache(folder, *widths)

    def setup(self) -> None:
        """Encode the pairs, or open the cache that holds them, and put the held-out prompts aside."""
        cfg = self.cfg
        with self.accelerator.main_process_first():  # one process encodes, the others find the cache
            cache = self._given or self._encode()
        side = cfg.resolution or min(self.policy.native_size)
        self._discounts = lru_cache(maxsize=1)(
            lambda steps, gamma: Discount(
                self.policy.draw_timesteps, self.policy.step_edges(steps, (side, side)), gamma
            )
        )
        self.train, held = cache.split(cfg.holdout, cfg.seed) if cfg.holdout else (cache, None)
        self.pairs = len(cache)
        self.heldout: HeldOut | None = None
        if held is not None:
            options = {"limit": cfg.holdout_limit, "chunk": cfg.batch_size, "seed": cfg.seed}
            self.heldout = HeldOut(self.policy, held, beta=cfg.beta, **options)
        self.remembered = RememberedErrors(len(self.train), cfg.noise_draws, self.accelerator.device)
        self._epoch, self._plan = 0, self.train.plan(cfg.seed, 0, self.state.global_batch)
        self._steps_per_epoch = len(self._plan)

    def _encode(self) -> PairCache:
        cfg = self.cfg
        skipped = skipping(cfg.unreadable, cfg.data)
        records = read_pairs(
            cfg.data,
            ties=cfg.ties,
            split=cfg.split,
            streaming=cfg.streaming,
            limit=cfg.limit,
            skipped=skipped,
        )
        return build_cache(
            cfg.cache or cfg.output / "cache",
            records,
            self.policy,
            resolution=cfg.resolution or min(self.policy.native_size),
            buckets=cfg.buckets,
            flip=cfg.flip,
            batch_size=cfg.encode_batch,
            skipped=skipped,
            fingerprint=self._made_of(),
        )

    def _made_of(self) -> dict[str, Any]:
        """The settings and files that a cache depends on: a changed label makes another one."""
        cfg, clip_skip = self.cfg, self.policy.options.clip_skip
        read = {key: getattr(cfg, key) for key in ("data", "split", "ties", "limit")}
        skip = {"clip_skip": clip_skip} if clip_skip else {}
        return {**read, **skip, "contents": identity(cfg.data), "encoders": self.policy.fingerprint()}

    @property
    def _discount(self) -> Discount:
        """Temporal discounting at the size of the images; one size stands for all buckets."""
        return self._discounts(self.cfg.num_inference_steps, self.cfg.gamma)

    def batch(self, step: int, micro: int) -> Batch:
        """The pairs, timesteps and noises of this process's rows, each drawn by its own key."""
        cfg, rows = self.cfg, self.rows(micro)
        epoch, place = divmod(step, self._steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self.train.plan(cfg.seed, epoch, self.state.global_batch)
        numbers, places = self._plan[place].tolist(), list[Place]()
        keys: list[Key] = [(cfg.seed, step, row) for row in rows]
        if cfg.noise_draws:
            drawn = draws(numbers, epoch, cfg.noise_draws)
            places = [(numbers[row], drawn[row]) for row in rows]
            keys = [(cfg.seed, *one, AGAIN) for one in places]
        pairs = self.train.batch(numbers[rows.start : rows.stop], [(*key, LATENT) for key in keys])
        pairs = drop_captions(cfg.caption_dropout_rate, self.policy, pairs, keys)
        batch = draw(cfg, self._discount, pairs, keys)
        return replace(batch, places=tuple(places)).to(self.accelerator.device)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The chosen loss of each pair; the reference is asked only where the loss knows one."""
        residuals = batch.residuals(self.policy)
        weight = discount_weight(self.cfg, self._discount, batch.t)
        if self.has_no_reference:
            count = self.policy.num_train_timesteps
            losses, metrics = reference_free_loss(self.cfg, *residuals, weight, num_train_timesteps=count)
        else:
            losses, metrics = reference_loss(self.cfg, residuals, self._reference(batch), weight)
        return batch.pairs.weight * losses, metrics

    def _reference(self, batch: Batch) -> Tensor:
        """The reference's mean squared errors on winner and loser, (B, 2); computed where they are new."""

        def errors(part: Batch) -> Tensor:
            with self.policy.reference():
                return torch.stack([mean_square(residual) for residual in part.residuals(self.policy)], 1)

        if not batch.places:
            return errors(batch)
        return self.remembered(batch.places, lambda new: errors(batch.rows(new)))

    @property
    def has_no_reference(self) -> bool:
        """Whether the loss sees denoising errors alone, as MaPO does."""
        return self.cfg.loss in objectives.names(objectives.ERRORS)

    def evaluate(self) -> dict[str, float]:
        """Implicit accuracy and loss on the held-out pairs, at the same timesteps and noise every time."""
        return {} if self.heldout is None else self.heldout.measure()

    def facts(self) -> Facts:
        """The pairs, and beta at the size of their latents; MaPO's weight is of another kind."""
        cfg, pairs = self.cfg, len(self.train)
        numbers = self.train.batch([0], [(cfg.seed,)]).win[0].numel()
        value, sizes = Config.model_fields["beta"].default, (SD, SDXL)
        beta = Published("beta", value, cfg.beta, "strength", sizes)
        if self.policy.kind == "flow":
            beta = Published("beta", FLOW_BETA, cfg.beta, "strength", (FLOW,))
        return replace(
            super().facts(),
            unit="pairs",
            train=pairs,
            heldout=0 if self.heldout is None else self.heldout.pairs,
            accuracy=True,
            epoch=pairs,
            repeats=True,
            published=() if self.has_no_reference else (beta,),
            numbers=numbers,
            watched={
                "margin": None if self.has_no_reference else LEAST_MARGIN * cfg.beta / beta.converted(numbers)
            },
            levers={"lr": cfg.lr, "lora_rank": cfg.lora_rank, "beta": cfg.beta},
        )

    def dataset(self) -> str | None:
        """The name, where the pairs are neither a file nor a folder."""
        return None if Path(self.cfg.data).expanduser().exists() else self.cfg.data.partition(":")[0]

    def data_card(self) -> str:
        """The source of the pairs and their number, for the model card."""
        return f"{self.pairs} preference pairs from {self.cfg.data}"
