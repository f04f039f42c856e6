"""Fine-tuning on liked images: plain denoising, the baseline of every method that aligns.

The loss is the mean squared error of the network's own target (noise, v or velocity) at a time drawn as the
family draws it, as the training scripts of diffusers and of kohya have it without their options.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from t2ialign.data.cache.rated import Rated, RatedCache
from t2ialign.data.cache.stored import EncodedCache
from t2ialign.data.rated import RatedRecord, read_rated
from t2ialign.data.skipped import Skipped
from t2ialign.methods.offline.base import OfflineTrainer
from t2ialign.methods.offline.draws import Batch
from t2ialign.methods.sft.config import Config
from t2ialign.objectives.preference import mean_square
from t2ialign.training.facts import Facts


class Trainer(OfflineTrainer[Config, Rated]):
    """Trains on the liked images of `cfg.data`, or on an already built cache of them."""

    method = "sft"
    cache_of = RatedCache

    def records(self, skipped: Skipped | None) -> Iterator[RatedRecord]:
        """The liked images. Raises ValueError if there are none."""
        cfg, count = self.cfg, 0
        rated = read_rated(cfg.data, split=cfg.split, streaming=cfg.streaming, skipped=skipped)
        for record in rated:
            if record.liked and count != cfg.limit:
                count += 1
                yield record
        if not count:
            raise ValueError(
                f"got no liked image in {cfg.data}; expected at least one to learn from; check column liked"
            )

    def loss(self, batch: Batch[Rated]) -> tuple[Tensor, dict[str, Tensor]]:
        """The denoising error of each image."""
        (residual,) = batch.residuals(self.policy)
        return batch.data.weight * mean_square(residual), {}

    def figures(
        self, cache: EncodedCache[Rated], rows: list[int], errors: Tensor, reference: Tensor
    ) -> dict[str, float]:
        """The mean denoising error of held-out images, and how far it is below that of the base model."""
        return {
            "heldout/loss": errors.mean().item(),
            "heldout/below_reference": (reference - errors).mean().item(),
        }

    def facts(self) -> Facts:
        """The images; the loss says little, and the held-out one should fall below the base's."""
        cfg = self.cfg
        return replace(super().facts(), levers={"lr": cfg.lr, "lora_rank": cfg.lora_rank})

    def data_card(self) -> str:
        """The source of the images and their number, for the model card."""
        return f"{self.count} liked images from {self.cfg.data}"
