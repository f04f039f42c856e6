"""The base of every method that learns from images on disk: the cache, its epochs, and held-out prompts.

Images and prompts are encoded once, into a cache; then the encoders leave memory. A trainer says which
records it reads, what it draws for a batch beside time and noise, and what is minimised.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from t2ialign.data.cache.build import Record, build_cache
from t2ialign.data.cache.stored import EncodedCache, cached_widths
from t2ialign.data.skipped import Skipped, skipping
from t2ialign.data.sources import identity
from t2ialign.diffusion.noise import Key
from t2ialign.methods.offline.draws import LATENT, Batch, RowsT, at, drop_captions, levels
from t2ialign.methods.offline.heldout import HeldOut
from t2ialign.methods.offline.settings import OfflineConfig
from t2ialign.models.ahead import Ahead
from t2ialign.training import base
from t2ialign.training.facts import Facts

Cfg = TypeVar("Cfg", bound=OfflineConfig)


class OfflineTrainer(base.Trainer[Cfg, Batch[RowsT]]):
    """Trains on the rows of `cfg.data`, or on an already built cache of them."""

    cache_of: ClassVar[type[EncodedCache[Any]]]
    """The cache that holds its rows."""

    def __init__(self, cfg: Cfg, *, policy: Any = None, cache: EncodedCache[RowsT] | None = None) -> None:
        self._given = cache
        self.supplied |= {"data"} if cache is not None else frozenset()
        super().__init__(cfg, policy=policy)

    @abstractmethod
    def records(self, skipped: Skipped | None) -> Iterator[Record]:
        """The rows of `cfg.data`, in order; what cannot be used goes to `skipped`, if that is there."""

    @abstractmethod
    def figures(
        self, cache: EncodedCache[RowsT], rows: list[int], errors: Tensor, reference: Tensor
    ) -> dict[str, float]:
        """What is logged of N held-out rows of a cache: errors (S, N, draws) of policy and reference."""

    def look_ahead(self, model: Ahead) -> None:
        """Raises ValueError also for a cache that is there and of no such prompts or latents."""
        super().look_ahead(model)
        folder = self.cfg.cache or self.cfg.output / "cache"
        if self._given is None and (widths := cached_widths(folder, self.cache_of.stem)) is not None:
            model.check_cache(folder, *widths)

    def setup(self) -> None:
        """Encode the rows, or open the cache that holds them, and put the held-out prompts aside."""
        cfg = self.cfg
        with self.accelerator.main_process_first():  # one process encodes, the others find the cache
            cache = self._given or self._encode()
        self.count = len(cache)
        self.train: EncodedCache[RowsT] = cache
        self.heldout: HeldOut[RowsT] | None = None
        if cfg.holdout:
            self.train, held = cache.split(cfg.holdout, cfg.seed)
            options = {"limit": cfg.holdout_limit, "chunk": cfg.batch_size, "seed": cfg.seed}
            self.heldout = HeldOut(self.policy, held, self.figures, **options)
        self._epoch, self._plan = 0, self.train.plan(cfg.seed, 0, self.state.global_batch)
        self._steps_per_epoch = len(self._plan)

    def _encode(self) -> EncodedCache[RowsT]:
        cfg = self.cfg
        skipped = skipping(cfg.unreadable, cfg.data)
        return build_cache(
            self.cache_of,
            cfg.cache or cfg.output / "cache",
            self.records(skipped),
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
        read = cfg.model_dump(mode="json", include=set(cfg.READ))
        skip = {"clip_skip": clip_skip} if clip_skip else {}
        return {**read, **skip, "contents": identity(cfg.data), "encoders": self.policy.fingerprint()}

    def numbers(self, step: int) -> tuple[int, list[int]]:
        """The epoch of an update, and the numbers of the rows of its global batch."""
        epoch, place = divmod(step, self._steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self.train.plan(self.cfg.seed, epoch, self.state.global_batch)
        return epoch, self._plan[place].tolist()

    def batch(self, step: int, micro: int) -> Batch[RowsT]:
        """This process's rows, each with a time, as the family draws it, and a noise of its own key."""
        rows = self.rows(micro)
        _, numbers = self.numbers(step)
        keys: list[Key] = [(self.cfg.seed, step, row) for row in rows]
        data = self.data(numbers[rows.start : rows.stop], keys)
        return at(self.policy.draw_timesteps(levels(keys)), data, keys).to(self.accelerator.device)

    def data(self, numbers: list[int], keys: list[Key]) -> RowsT:
        """Rows of the cache, their latents and dropped captions drawn by their keys."""
        rows = self.train.batch(numbers, [(*key, LATENT) for key in keys])
        return drop_captions(self.cfg.caption_dropout_rate, self.policy, rows, keys)

    def evaluate(self) -> dict[str, float]:
        """The figures of the held-out rows, at the same timesteps and noise every time."""
        return {} if self.heldout is None else self.heldout.measure()

    def facts(self) -> Facts:
        """The rows, and the numbers of a latent."""
        return replace(
            super().facts(),
            unit=f"{self.train.unit}s",
            train=len(self.train),
            heldout=0 if self.heldout is None else self.heldout.count,
            epoch=len(self.train),
            repeats=True,
            numbers=self.train.batch([0], [(self.cfg.seed,)]).x_0[0, 0].numel(),
        )

    def dataset(self) -> str | None:
        """The name, where the data are neither a file nor a folder."""
        return None if Path(self.cfg.data).expanduser().exists() else self.cfg.data.partition(":")[0]

    def data_card(self) -> str:
        """The source of the data and their number, for the model card."""
        return f"{self.count} {self.train.unit}s from {self.cfg.data}"
