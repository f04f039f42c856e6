"""The base of trainers of a scorer: images prepared once, held-out prompts, the best weights."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from t2ialign.data.cache.comparisons import Compared, ComparisonCache, build_comparisons
from t2ialign.data.pairs import PairRecord, read_pairs
from t2ialign.data.skipped import Skipped, skipping
from t2ialign.data.sources import identity
from t2ialign.io.hashes import digest, fault, note, noted
from t2ialign.methods.reward.compared_config import ComparisonConfig
from t2ialign.training.facts import Facts
from t2ialign.training.log import METRICS, read_rows
from t2ialign.training.loop import Loop
from t2ialign.training.output import CHECKPOINTS

log = logging.getLogger(__name__)

Figures = dict[str, float]
"""Figures of held-out pairs; "heldout/accuracy" and "heldout/loss" are among them."""


Cfg = TypeVar("Cfg", bound=ComparisonConfig)
BatchT = TypeVar("BatchT")


class ComparisonTrainer(Loop[Cfg, BatchT], Generic[Cfg, BatchT]):
    """The loop over compared images; the best weights on held-out pairs are the result."""

    images_per_row = 2
    file: ClassVar[str]
    """The name of what `write` writes."""
    best: tuple[float, float] = (-1.0, 0.0)
    """The `rank` of the best held-out figures so far."""

    @abstractmethod
    def prepare(self, image: Image.Image) -> Tensor:
        """An RGB image -> what is stored of it."""

    @abstractmethod
    def made_of(self) -> dict[str, Any]:
        """The settings that decide whether stored images can be used again, as plain JSON."""

    @abstractmethod
    def measure(self, part: ComparisonCache) -> Figures:
        """The figures of the weights at hand on at most `holdout_limit` pairs, the same ones every time."""

    @abstractmethod
    def write(self, folder: Path, figures: Figures | None = None) -> Path:
        """Write the weights at hand as users load them, with their finite figures -> the file."""

    def setup(self) -> None:
        """Prepare the images, or open the cache that holds them, and put the held-out prompts aside."""
        cfg = self.cfg
        with self.accelerator.main_process_first():  # one process prepares, the others find the cache
            cache = self._prepared()
        part, held = cache.split(cfg.holdout, cfg.seed) if cfg.holdout else (cache, None)
        self.pairs, self.heldout = len(cache), held
        self.train = part.even() if cfg.even_prompts else part
        self._order = lru_cache(maxsize=2)(lambda epoch: self.train.order(cfg.seed, epoch))
        file = cfg.output / METRICS
        if (
            self.state.step and file.is_file() and self._is_written()
        ):  # rows past the checkpoint are of a run that was cut off
            rows = [row for row in read_rows(file) if row["step"] <= self.state.step]
            self.best = max([self.best, *(rank(row) for row in rows if "heldout/accuracy" in row)])

    def first_prompts(self, count: int) -> list[str]:
        """The prompts of the first pairs, repeated if there are fewer; raises ValueError as `read_pairs`."""
        pairs = self._pairs(skipping(self.cfg.unreadable, self.cfg.data))
        return list(islice(cycle([pair.prompt for pair in islice(pairs, count)]), count))

    def _pairs(self, skipped: Skipped | None) -> Iterator[PairRecord]:
        cfg = self.cfg
        return read_pairs(
            cfg.data,
            ties=cfg.ties,
            split=cfg.split,
            streaming=cfg.streaming,
            limit=cfg.limit,
            skipped=skipped,
        )

    def _prepared(self) -> ComparisonCache:
        cfg = self.cfg
        skipped = skipping(cfg.unreadable, cfg.data)
        read = {key: getattr(cfg, key) for key in ("data", "split", "ties", "limit")}
        return build_comparisons(
            cfg.cache or cfg.output / "cache",
            self._pairs(skipped),
            self.prepare,
            skipped=skipped,
            fingerprint={**read, "contents": identity(cfg.data), "squares": self.made_of()},
        )

    def compared(self, step: int, micro: int) -> Compared:
        """The pairs of this process's rows: an epoch goes through all of them once, in random order."""
        first, size = step * self.state.global_batch, len(self.train)
        places = [divmod(first + row, size) for row in self.rows(micro)]
        chosen = np.array([self._order(epoch)[place] for epoch, place in places])
        return self.train.batch(chosen).to(self.accelerator.device)

    def evaluate(self) -> Figures:
        """Measure the held-out pairs, and write the weights if they are the best so far."""
        if self.heldout is None:
            return {}
        figures = self.measure(self.heldout)
        if rank(figures) > self.best:
            self.best = rank(figures)
            note(self.cfg.output / CHECKPOINTS, self.file, digest(self.write(self.cfg.output, figures)))
        return figures

    def result(self) -> Path:
        """The best weights, which are written already, or without held-out pairs the last ones."""
        if self.heldout is None or not self._is_written():
            return super().result()
        return self.cfg.output / self.file

    def _is_written(self) -> bool:
        """Whether the best weights are there as they were written; if not, later ones take their place."""
        best, known = self.cfg.output / self.file, noted(self.cfg.output / CHECKPOINTS) or {}
        wrong = fault(best, known.get(self.file))
        if wrong is not None and best.exists() and self.accelerator.is_main_process:
            log.warning("%s is damaged (%s): weights of a later step take its place", best, wrong)
        return wrong is None

    def chosen(self, part: ComparisonCache) -> list[np.ndarray]:
        """The numbers of the held-out pairs that are measured, a batch at a time."""
        cfg = self.cfg
        rows = part.order(cfg.seed, 0)[: cfg.holdout_limit]
        return [rows[i : i + cfg.batch_size] for i in range(0, len(rows), cfg.batch_size)]

    def facts(self) -> Facts:
        """The pairs; each trainer adds what it trains."""
        pairs, held = len(self.train), 0 if self.heldout is None else len(self.heldout)
        return Facts(
            self.method,
            unit="pairs",
            train=pairs,
            heldout=min(held, self.cfg.holdout_limit),
            accuracy=True,
            epoch=pairs,
            repeats=True,
        )

    def dataset(self) -> str | None:
        """The name, where the pairs are neither a file nor a folder."""
        return None if Path(self.cfg.data).expanduser().exists() else self.cfg.data.partition(":")[0]

    def data_card(self) -> str:
        """The source of the pairs and their number, for the model card."""
        return f"{self.pairs} preference pairs from {self.cfg.data}"


def rank(row: Figures) -> tuple[float, float]:
    """The rank of a scorer: its accuracy, and at equal accuracy its loss."""
    return row["heldout/accuracy"], -row["heldout/loss"]


def finite(figures: Figures | None) -> Figures:
    """The figures that JSON can hold."""
    return {name: value for name, value in (figures or {}).items() if math.isfinite(value)}
