"""Likes and dislikes of single images: Diffusion-KTO (Li et al. 2024) and BCO (Jung et al. 2024).

A step is one forward of the policy and one of the reference on B latents. What pairs compare with each other
is compared here with a mean: of the micro-step over all processes, or one that is followed (`point.py`).
For images there is no published BCO: its mean per noise level, since the gain depends on it, is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from t2ialign.data.cache.rated import Rated, RatedCache
from t2ialign.data.cache.stored import EncodedCache
from t2ialign.data.rated import RatedRecord, read_rated
from t2ialign.data.skipped import Skipped
from t2ialign.methods.kto.config import Config
from t2ialign.methods.kto.point import RunningMeans
from t2ialign.methods.offline.base import OfflineTrainer
from t2ialign.methods.offline.draws import Batch
from t2ialign.objectives.preference import mean_square, wins
from t2ialign.objectives.unpaired import balanced, bco, kto
from t2ialign.training.conversion import SD, Published
from t2ialign.training.facts import Facts


class Trainer(OfflineTrainer[Config, Rated]):
    """Trains on the images of `cfg.data`, or on an already built cache of them."""

    method = "kto"
    cache_of = RatedCache

    def records(self, skipped: Skipped | None) -> Iterator[RatedRecord]:
        """All images, liked or not."""
        cfg = self.cfg
        return read_rated(
            cfg.data, split=cfg.split, streaming=cfg.streaming, limit=cfg.limit, skipped=skipped
        )

    def setup(self) -> None:
        """Read the images and weigh both kinds. Raises ValueError if one kind is missing."""
        super().setup()
        cfg, liked = self.cfg, self.train.column("liked") > 0
        self.liked, self.disliked = int(liked.sum()), int((~liked).sum())
        if not self.liked or not self.disliked:
            kind = "liked" if self.liked else "disliked"
            raise ValueError(
                f"got {len(liked)} images to train on in {cfg.data}, all of them {kind}; expected liked and "
                "disliked ones; add the other kind, or train sft on liked images alone"
            )
        ratio = cfg.liked_weight or self.disliked / self.liked
        mean = (ratio * self.liked + self.disliked) / len(liked)
        self.weights = (ratio / mean, 1 / mean)
        is_kto = cfg.loss == "kto"
        decay = cfg.reference_decay if is_kto else cfg.shift_decay
        self.means = RunningMeans(1 if is_kto else cfg.shift_bins, decay, self.accelerator)
        self.state.keep("means", self.means.tensors)

    def loss(self, batch: Batch[Rated]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of each image, by the weight of its kind."""
        cfg, liked = self.cfg, batch.data.liked
        gain = self._gain(batch)
        if cfg.loss == "kto":
            point = self._point(batch, gain)
            losses = kto(gain, liked, beta=cfg.beta, point=point, utility=cfg.utility)
        else:
            bins = (batch.t / self.policy.num_train_timesteps * cfg.shift_bins).long()
            bins = bins.clamp(0, cfg.shift_bins - 1)
            point = self.means.add(cfg.beta * gain, bins)[bins]
            losses = bco(gain, liked, beta=cfg.beta, shift=point)
        weight = torch.where(liked > 0, *self.weights) * batch.data.weight
        count, reward = self.liked + self.disliked, cfg.beta * gain.detach()
        return weight * losses, {  # each row over its kind's share of the data: means are those of the kinds
            "reference_point": point,
            "reward_liked": reward * liked * count / self.liked,
            "reward_disliked": reward * (1 - liked) * count / self.disliked,
        }

    def _gain(self, batch: Batch[Rated]) -> Tensor:
        """How far the policy's error is below the reference's, (B,)."""
        (residual,) = batch.residuals(self.policy)
        with self.policy.reference():
            (reference,) = batch.residuals(self.policy)
        return mean_square(reference) - mean_square(residual)

    def _point(self, batch: Batch[Rated], gain: Tensor) -> Tensor:
        """The gain that counts as none, a number."""
        cfg, values = self.cfg, gain.detach()
        if cfg.reference_point == "mismatched":
            cond = {name: value.roll(1, 0) for name, value in batch.data.cond.items()}
            with torch.no_grad():
                values = self._gain(replace(batch, data=replace(batch.data, cond=cond)))
        elif cfg.reference_point == "balanced":
            values = balanced(batch.data.liked, values).expand(1)
        bins = torch.zeros(len(values), dtype=torch.long, device=values.device)
        point = self.means.add(values, bins)[0]
        return point.clamp_min(0) if cfg.reference_point == "batch" else point

    def figures(
        self, cache: EncodedCache[Rated], rows: list[int], errors: Tensor, reference: Tensor
    ) -> dict[str, float]:
        """How often a liked image gains more than a disliked one, over all such pairs; 50 % before training.

        Nothing where the held-out images are all of one kind.
        """
        gain = (reference - errors)[0].mean(1)
        liked = torch.from_numpy(cache.column("liked")[rows] > 0).to(gain.device)
        if liked.all() or not liked.any():
            return {}
        return {"heldout/implicit_acc": wins(gain[liked][:, None] - gain[~liked]).mean().item()}

    def facts(self) -> Facts:
        """The images of both kinds and their weights, and beta at the size of their latents."""
        cfg, facts = self.cfg, super().facts()
        kinds = ((self.liked, "liked", self.weights[0]), (self.disliked, "disliked", self.weights[1]))
        likes = ", ".join(f"{count} {kind} (weight {weight:.3g})" for count, kind, weight in kinds)
        beta = Published("beta", Config.model_fields["beta"].default, cfg.beta, "strength", (SD,))
        return replace(
            facts,
            accuracy=True,
            more={**facts.more, "likes": likes},
            published=(beta,),
            levers={"lr": cfg.lr, "lora_rank": cfg.lora_rank, "beta": cfg.beta},
        )

    def data_card(self) -> str:
        """The source of the images and their numbers, for the model card."""
        return f"{self.count} images from {self.cfg.data}, of which {self.liked} liked ones are trained on"
