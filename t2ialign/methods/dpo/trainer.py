"""Diffusion-DPO on pairs of images, with temporal discounting and a safeguard for the winner.

Wallace et al. 2024 (Diffusion-DPO); Yang et al. 2024 (discounting); arXiv 2511.03317 (Diffusion-SDPO). One
forward of the policy and one of the reference on 2B latents a step: images and prompts are encoded once, into
a cache, and the reference is the adapter switched off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from t2ialign import objectives
from t2ialign.data.cache.stored import EncodedCache, PairCache, Pairs
from t2ialign.data.pairs import PairRecord, read_pairs
from t2ialign.data.skipped import Skipped
from t2ialign.diffusion.noise import Key
from t2ialign.methods.dpo.config import Config
from t2ialign.methods.dpo.loss import (
    discount_weight,
    draw_times,
    labels_of,
    reference_free_loss,
    reference_loss,
)
from t2ialign.methods.dpo.remembered import RememberedErrors, draws
from t2ialign.methods.offline.base import OfflineTrainer
from t2ialign.methods.offline.draws import Batch, Place, at, levels
from t2ialign.objectives.preference import denoising_ratio, mean_square, wins
from t2ialign.objectives.weighting import Discount
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


class Trainer(OfflineTrainer[Config, Pairs]):
    """Trains on the pairs of `cfg.data`, or on an already built cache of them."""

    method = "dpo"
    images_per_row = 2
    cache_of = PairCache

    def records(self, skipped: Skipped | None) -> Iterator[PairRecord]:
        """The pairs, ties as the settings want them."""
        cfg = self.cfg
        return read_pairs(
            cfg.data,
            ties=cfg.ties,
            split=cfg.split,
            streaming=cfg.streaming,
            limit=cfg.limit,
            skipped=skipped,
        )

    def setup(self) -> None:
        """Read the pairs; and how times are drawn, and what of the reference is remembered."""
        super().setup()
        cfg = self.cfg
        side = cfg.resolution or min(self.policy.native_size)
        self._discounts = lru_cache(maxsize=1)(
            lambda steps, gamma: Discount(
                self.policy.draw_timesteps, self.policy.step_edges(steps, (side, side)), gamma
            )
        )
        self.remembered = RememberedErrors(len(self.train), cfg.noise_draws, self.accelerator.device)
        if cfg.loss in objectives.names(objectives.MARGINS):
            self._check_margins()

    def _check_margins(self) -> None:
        """Raises ValueError unless every pair says how much better its winner is."""
        assert isinstance(self.train, PairCache), "dpo reads pairs"
        margins = self.train.label("margin")
        if missing := int(np.isnan(margins).sum()):
            raise ValueError(
                f"got {missing} of {len(margins)} pairs of {self.cfg.data} without a margin, for "
                f"loss={self.cfg.loss}; expected a number each in a column margin; t2ialign pairs writes it"
            )

    @property
    def _discount(self) -> Discount:
        """Temporal discounting at the size of the images; one size stands for all buckets."""
        return self._discounts(self.cfg.num_inference_steps, self.cfg.gamma)

    def batch(self, step: int, micro: int) -> Batch[Pairs]:
        """The pairs, timesteps and noises of this process's rows, each drawn by its own key."""
        cfg, rows = self.cfg, self.rows(micro)
        (epoch, numbers), places = self.numbers(step), list[Place]()
        keys: list[Key] = [(cfg.seed, step, row) for row in rows]
        if cfg.noise_draws:
            drawn = draws(numbers, epoch, cfg.noise_draws)
            places = [(numbers[row], drawn[row]) for row in rows]
            keys = [(cfg.seed, *one, AGAIN) for one in places]
        pairs = self.data(numbers[rows.start : rows.stop], keys)
        batch = at(draw_times(cfg, self._discount, levels(keys)), pairs, keys)
        return replace(batch, places=tuple(places)).to(self.accelerator.device)

    def loss(self, batch: Batch[Pairs]) -> tuple[Tensor, dict[str, Tensor]]:
        """The chosen loss of each pair; the reference is asked only where the loss knows one."""
        win, lose = batch.residuals(self.policy)
        weight = discount_weight(self.cfg, self._discount, batch.t)
        if self.has_no_reference:
            count = self.policy.num_train_timesteps
            losses, metrics = reference_free_loss(self.cfg, win, lose, weight, num_train_timesteps=count)
        else:
            labels = labels_of(self.cfg, batch.data)
            losses, metrics = reference_loss(self.cfg, (win, lose), self._reference(batch), weight, labels)
        return batch.data.weight * losses, metrics

    def _reference(self, batch: Batch[Pairs]) -> Tensor:
        """The reference's mean squared errors on winner and loser, (B, 2); computed where they are new."""

        def errors(part: Batch[Pairs]) -> Tensor:
            with self.policy.reference():
                return torch.stack([mean_square(residual) for residual in part.residuals(self.policy)], 1)

        if not batch.places:
            return errors(batch)
        return self.remembered(batch.places, lambda new: errors(batch.rows(new)))

    @property
    def has_no_reference(self) -> bool:
        """Whether the loss sees denoising errors alone, as MaPO does."""
        return self.cfg.loss in objectives.names(objectives.ERRORS)

    def figures(
        self, cache: EncodedCache[Pairs], rows: list[int], errors: Tensor, reference: Tensor
    ) -> dict[str, float]:
        """Share of pairs with a positive mean margin over the draws (a tie counts half); the DPO loss.

        50 % and ln 2 before training, when all margins are 0.
        """
        r_win, r_lose = denoising_ratio(errors, reference)
        margins = r_win - r_lose
        losses = -logsigmoid(self.cfg.beta * margins)
        accuracy, loss = torch.stack([wins(margins.mean(1)).mean(), losses.mean()]).tolist()
        return {"heldout/implicit_acc": accuracy, "heldout/loss": loss}

    def facts(self) -> Facts:
        """The pairs, and beta at the size of their latents; MaPO's weight is of another kind."""
        cfg, facts = self.cfg, super().facts()
        value, sizes = Config.model_fields["beta"].default, (SD, SDXL)
        beta = Published("beta", value, cfg.beta, "strength", sizes)
        if self.policy.kind == "flow":
            beta = Published("beta", FLOW_BETA, cfg.beta, "strength", (FLOW,))
        least = LEAST_MARGIN * cfg.beta / beta.converted(facts.numbers)
        return replace(
            facts,
            accuracy=True,
            published=() if self.has_no_reference else (beta,),
            watched={"margin": None if self.has_no_reference else least},
            levers={"lr": cfg.lr, "lora_rank": cfg.lora_rank, "beta": cfg.beta},
        )

    def data_card(self) -> str:
        """The source of the pairs and their number, for the model card."""
        return f"{self.count} preference pairs from {self.cfg.data}"
