"""Training a scorer on pairs: Bradley-Terry with soft labels and ties. Kirstain et al. 2023 (PickScore).

Every distinct picture is prepared once, into a cache; a step is one forward of 2B squares. Held-out pairs, of
prompts never trained on, say how good the scorer is, and the best weights by them are the result. Defaults
are PickScore's recipe for CLIP-H: all weights, batches of 128, 4,000 steps.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

import rewards
from rewards import trained
from rewards.calibrate import report
from t2ialign import __version__
from t2ialign.data.comparisons import Compared, ComparisonCache, build_comparisons
from t2ialign.data.pairs import read_pairs
from t2ialign.data.sources import identity
from t2ialign.models import plain_lora
from t2ialign.objectives.preference import bradley_terry
from t2ialign.trainers import base, card
from t2ialign.trainers.log import METRICS, read_rows
from t2ialign.trainers.pairwise import wins
from t2ialign.trainers.scorer import Scorer, Squares, head, reached, train_weights
from t2ialign.trainers.state import TrainState


class Config(base.LoopConfig):
    """Settings of train reward."""

    FREE: ClassVar[frozenset[str]] = base.LoopConfig.FREE | {"cache"}

    reward: str
    """The scorer to train: a name of rewards.load, or the output folder of an earlier run."""
    weights: str | None = None
    """What it starts from, as its own `weights` option takes it; none is the published checkpoint."""
    data: str
    """Preference pairs: a parquet or JSONL file, a folder with chosen/ and rejected/, or a Hub dataset."""
    split: str = "train"
    """Of a Hub dataset."""
    streaming: bool = False
    """Read a Hub dataset without storing it."""
    limit: int | None = Field(default=None, ge=1)
    """Read at most so many pairs."""
    ties: Literal["soft", "drop"] = "soft"
    """Pairs without a winner teach equal scores, or are left out."""
    unreadable: Literal["error", "skip"] = "error"
    """A picture that cannot be read stops the run, or is logged and left out with its pairs."""
    resolution: int | None = Field(default=None, ge=8)
    """Pixels of the sides of stored pictures, for scorers that read any size; others know their own."""
    cache: Path | None = None
    """Folder for prepared pictures; none is output/cache. Runs on the same data can share it."""
    even_prompts: bool = True
    """Weigh a pair by 1 / the pairs of its prompt, so that every prompt has one voice."""
    holdout: float = Field(default=0.05, ge=0, lt=1)
    """Share of the prompts kept out of training, to measure accuracy and keep the best; 0 keeps out none."""
    holdout_limit: int = Field(default=1024, ge=1)
    """At most so many held-out pairs are measured."""

    train: Literal["full", "lora", "head"] = "full"
    """All weights, a LoRA that is merged in the result, or the weights of the head."""
    layers: tuple[str, ...] = ()
    """Patterns of the weights that train=head trains, such as tower.model.*_projection.*; none is its own."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of the LoRA."""
    lora_alpha: float | None = Field(default=None, gt=0)
    """Strength of the LoRA; none means its rank."""
    lora_targets: tuple[str, ...] = plain_lora.TARGETS
    """Last names of the linear layers that get a LoRA, where the scorer has them."""
    scale: float = Field(default=1.0, gt=0)
    """P(first is better) = sigmoid(scale x difference): 1 for PickScore, about 100 for cosines."""

    max_steps: int = Field(default=4000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(default=16, ge=1)
    """Pairs per process and micro-step."""
    accumulate: int = Field(default=8, ge=1)
    """Micro-steps per optimiser step; the global batch is batch_size x accumulate x processes."""
    lr: float = Field(default=3e-6, gt=0)
    """Peak learning rate."""
    lr_warmup: int = Field(default=500, ge=0)
    """Optimiser steps over which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.3, ge=0)
    """Of AdamW."""


class Trainer(base.Loop[Config, Compared]):
    """Trains the scorer `cfg.reward`, or one given, which is then of that name; it stays in eval mode."""

    method = "reward"
    images_per_row = 2

    def __init__(self, cfg: Config, *, reward: rewards.Reward | None = None) -> None:
        self._given = reward
        super().__init__(cfg)

    def load(self) -> TrainState:
        """The scorer with what of it is trained. Raises ValueError for one that has nothing to train."""
        cfg = self.cfg
        options: dict[str, Any] = {"weights": cfg.weights} if cfg.weights else {}
        reward = self._given or rewards.load(cfg.reward, **options)
        reward = reward.to(self.accelerator.device).eval()
        squares = Squares.of(reward, cfg.resolution)
        if cfg.train == "lora":
            plain_lora.inject(
                reward, rank=cfg.lora_rank, alpha=cfg.lora_alpha, targets=cfg.lora_targets, seed=cfg.seed
            )
        else:
            train_weights(reward, ["*"] if cfg.train == "full" else cfg.layers or head(reward))
        self.reward, self.squares = reward, squares
        self.best = (-1.0, 0.0)
        scorer = Scorer(reward, squares)
        self.trained = reached(scorer)
        self.net: torch.nn.Module = scorer
        return TrainState(cfg, self.accelerator, self, self.trained, self._write, often=False)

    def setup(self) -> None:
        """Prepare the pictures, or open the cache that holds them, and put the held-out prompts aside."""
        cfg = self.cfg
        with self.accelerator.main_process_first():  # one process prepares, the others find the cache
            cache = self._prepare()
        part, held = cache.split(cfg.holdout, cfg.seed) if cfg.holdout else (cache, None)
        self.pairs, self.heldout = len(cache), held
        self.train = part.even() if cfg.even_prompts else part
        self._order = lru_cache(maxsize=2)(lambda epoch: self.train.order(cfg.seed, epoch))
        file = cfg.output / METRICS
        if self.state.step and file.is_file():  # rows past the checkpoint are of a run that was cut off
            rows = [row for row in read_rows(file) if row["step"] <= self.state.step]
            self.best = max([self.best, *(_rank(row) for row in rows if "heldout/accuracy" in row)])

    def _prepare(self) -> ComparisonCache:
        cfg = self.cfg
        records = read_pairs(
            cfg.data, ties=cfg.ties, split=cfg.split, streaming=cfg.streaming, limit=cfg.limit
        )
        read = {key: getattr(cfg, key) for key in ("data", "split", "ties", "limit")}
        return build_comparisons(
            cfg.cache or cfg.output / "cache",
            records,
            self.squares.prepare,
            unreadable=cfg.unreadable,
            fingerprint={**read, "contents": identity(cfg.data), "squares": self.squares.made_of()},
        )

    def batch(self, step: int, micro: int) -> Compared:
        """The pairs of this process's rows: an epoch goes through all of them once, in random order."""
        first, size = step * self.state.global_batch, len(self.train)
        places = [divmod(first + row, size) for row in self.rows(micro)]
        chosen = np.array([self._order(epoch)[place] for epoch, place in places])
        return self.train.batch(chosen).to(self.accelerator.device)

    def loss(self, batch: Compared) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the two-image softmax; its least value is 0 for every label."""
        margin = self.cfg.scale * self.net(batch.win, batch.lose, batch.prompts)
        losses = batch.weight * bradley_terry(margin, batch.preference)
        right = torch.where(batch.preference == 0.5, 0.5, wins(margin))
        return losses, {"accuracy": right, "margin": margin}

    def evaluate(self) -> dict[str, float]:
        """Accuracy on the held-out pairs with its 95 % interval by prompt; the best weights are written."""
        if self.heldout is None:
            return {}
        figures = self.measure(self.heldout)
        if _rank(figures) > self.best:
            self.best = _rank(figures)
            self._write(self.cfg.output, figures)
        return figures

    @torch.no_grad()
    def measure(self, part: ComparisonCache) -> dict[str, float]:
        """The figures of the weights at hand on at most `holdout_limit` pairs, the same ones every time.

        accuracy: predicted ties are wrong, label ties do not count. ece: of sigmoid(scale x difference).
        """
        cfg, device = self.cfg, self.accelerator.device
        rows = part.order(cfg.seed, 0)[: cfg.holdout_limit]
        chunks = [rows[i : i + cfg.batch_size] for i in range(0, len(rows), cfg.batch_size)]
        batches = (part.batch(chunk).to(device) for chunk in tqdm(chunks, desc="held-out pairs", delay=3))
        both = [(self.net(b.win, b.lose, b.prompts), b.preference) for b in batches]
        margin, preference = (torch.cat(column).float().cpu() for column in zip(*both, strict=True))
        prompts = [part.prompt(int(row)) for row in rows]
        found = report(margin.numpy(), preference.numpy(), prompts, scale=cfg.scale)
        loss = bradley_terry(cfg.scale * margin, preference).mean()
        return {
            "heldout/accuracy": found["accuracy"].value,
            "heldout/accuracy_low": found["accuracy"].low,
            "heldout/accuracy_high": found["accuracy"].high,
            "heldout/ece": found["ece"].value,
            "heldout/loss": float(loss),
        }

    def result(self) -> Path:
        """The best weights, which are written already, or without held-out pairs the last ones."""
        best = self.cfg.output / trained.WEIGHTS
        return best if self.heldout is not None and best.is_file() else super().result()

    def _write(self, folder: Path, figures: dict[str, float] | None = None) -> Path:
        cfg, source = self.cfg, self.cfg.weights or self.cfg.reward
        about: dict[str, Any] = {"reward": cfg.reward, "options": {}}
        kept: set[str] = set()
        if trained.is_trained(source):  # trained twice: over the first base, what either run changed
            about, kept = trained.read_about(source), set(trained.read_tensors(source))
        elif cfg.weights:
            local = Path(cfg.weights).expanduser()
            about["options"] = {"weights": str(local.resolve()) if local.exists() else cfg.weights}
        state = self.reward.state_dict()
        changed = plain_lora.merged(self.reward) if cfg.train == "lora" else self.trained
        tensors = {name: state[name] for name in kept if name in state} | dict(changed)
        found = {name: value for name, value in (figures or {}).items() if math.isfinite(value)}
        more = {"scale": cfg.scale, "step": self.state.step, "heldout": found, "t2ialign": __version__}
        base_of = {key: about[key] for key in ("reward", "options")}
        return trained.save(folder, tensors, {**base_of, "train": cfg.train, "data": cfg.data, **more})

    def write_card(self, metrics: dict[str, float]) -> None:
        """What was trained on what, how good it is, and how it is loaded."""
        cfg, data, dataset = self.cfg, self.data_card(), self.dataset()
        what = {"full": "all weights", "lora": f"LoRA of rank {cfg.lora_rank}, merged", "head": "its head"}
        card.write_scorer(
            cfg, reward=cfg.reward, data=data, dataset=dataset, trained=what[cfg.train], metrics=metrics
        )

    def dataset(self) -> str | None:
        """The name, where the pairs are neither a file nor a folder."""
        return None if Path(self.cfg.data).expanduser().exists() else self.cfg.data.partition(":")[0]

    def data_card(self) -> str:
        """Where the pairs come from and how many."""
        return f"{self.pairs} preference pairs from {self.cfg.data}"


def _rank(row: dict[str, float]) -> tuple[float, float]:
    """What makes a scorer the better one: accuracy, and at equal accuracy the loss."""
    return row["heldout/accuracy"], -row["heldout/loss"]
