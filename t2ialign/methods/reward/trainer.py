"""Training a scorer on pairs: Bradley-Terry with soft labels and ties. Kirstain et al. 2023 (PickScore).

Every distinct image is prepared once, into a cache; a step is one forward of 2B squares. Held-out pairs, of
prompts never trained on, measure the scorer, and the best weights by them are the result. Defaults
are PickScore's recipe for CLIP-H: all weights, batches of 128, 4,000 steps.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import rewards
from rewards import trained
from t2ialign.data.cache.comparisons import Compared, ComparisonCache
from t2ialign.evaluation.calibrate import report
from t2ialign.methods.reward.compared import ComparisonTrainer, finite
from t2ialign.methods.reward.config import Config
from t2ialign.methods.reward.reached import reached
from t2ialign.methods.reward.scorer import Scorer, Squares, head, probe, train_weights
from t2ialign.models import plain_lora
from t2ialign.objectives.preference import bradley_terry, wins
from t2ialign.progress import Progress
from t2ialign.training import card
from t2ialign.training.facts import Facts
from t2ialign.training.state import TrainState
from t2ialign.version import __version__


class Trainer(ComparisonTrainer[Config, Compared]):
    """Trains the scorer `cfg.reward`, or one given, which is then of that name; it stays in eval mode."""

    method = "reward"
    file = trained.WEIGHTS

    def __init__(self, cfg: Config, *, reward: rewards.Reward | None = None) -> None:
        self._given = reward
        self.supplied |= {"reward"} if reward is not None else frozenset()
        super().__init__(cfg)

    def load(self) -> TrainState:
        """The scorer with what of it is trained. Raises ValueError for one that has nothing to train."""
        cfg = self.cfg
        options = {cfg.reward: {**cfg.reward_options, **({"weights": cfg.weights} if cfg.weights else {})}}
        reward = self._given or rewards.load_all(options, options)[cfg.reward]
        reward = reward.to(self.accelerator.device).eval()
        squares = Squares.of(reward, cfg.resolution)
        if cfg.train == "lora":
            plain_lora.inject(
                reward, rank=cfg.lora_rank, alpha=cfg.lora_alpha, targets=cfg.lora_targets, seed=cfg.seed
            )
        else:
            train_weights(reward, ["*"] if cfg.train == "full" else cfg.layers or head(reward))
        self.reward, self.squares = reward, squares
        scorer = Scorer(reward, squares)
        self.trained = reached(reward, probe(scorer, self.first_prompts(2)))
        self.net: torch.nn.Module = scorer
        return TrainState(cfg, self.accelerator, self, self.trained, self.write, often=False)

    def prepare(self, image: Image.Image) -> Tensor:
        """The square that the scorer reads, (3, S, S)."""
        return self.squares.prepare(image)

    def made_of(self) -> dict[str, Any]:
        """The kind of square."""
        return self.squares.made_of()

    def batch(self, step: int, micro: int) -> Compared:
        """The pairs of this process's rows."""
        return self.compared(step, micro)

    def loss(self, batch: Compared) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the two-image softmax; its least value is 0 for every label."""
        margin = self.cfg.scale * self.net(batch.win, batch.lose, batch.prompts)
        losses = batch.weight * bradley_terry(margin, batch.preference)
        right = torch.where(batch.preference == 0.5, 0.5, wins(margin))
        return losses, {"accuracy": right, "margin": margin}

    @torch.no_grad()
    def measure(self, part: ComparisonCache) -> dict[str, float]:
        """The figures of the weights at hand on at most `holdout_limit` pairs, the same ones every time.

        accuracy: predicted ties are wrong, label ties do not count. ece: of sigmoid(scale x difference).
        """
        cfg, device = self.cfg, self.accelerator.device
        chunks = self.chosen(part)
        batches = (part.batch(chunk).to(device) for chunk in Progress(chunks, desc="held-out pairs", delay=3))
        both = [(self.net(b.win, b.lose, b.prompts), b.preference) for b in batches]
        margin, preference = (torch.cat(column).float().cpu() for column in zip(*both, strict=True))
        prompts = [part.prompt(int(row)) for chunk in chunks for row in chunk]
        figures = report(margin.numpy(), preference.numpy(), prompts, scale=cfg.scale)
        loss = bradley_terry(cfg.scale * margin, preference).mean()
        return {
            "heldout/accuracy": figures["accuracy"].value,
            "heldout/accuracy_low": figures["accuracy"].low,
            "heldout/accuracy_high": figures["accuracy"].high,
            "heldout/ece": figures["ece"].value,
            "heldout/loss": float(loss),
        }

    def write(self, folder: Path, figures: dict[str, float] | None = None) -> Path:
        """The trained weights, laid over the reward they came from."""
        cfg, source = self.cfg, self.cfg.weights or self.cfg.reward
        about: dict[str, Any] = {"reward": cfg.reward, "options": cfg.reward_options}
        earlier: set[str] = set()
        if trained.is_trained(source):  # trained twice: over the first base, what either run changed
            about, earlier = trained.read_about(source), set(trained.read_tensors(source))
        elif cfg.weights:
            local = Path(cfg.weights).expanduser()
            weights = str(local.resolve()) if local.exists() else cfg.weights
            about["options"] = {**cfg.reward_options, "weights": weights}
        state = self.reward.state_dict()
        changed = plain_lora.merged(self.reward) if cfg.train == "lora" else self.trained
        tensors = {name: state[name] for name in earlier if name in state} | dict(changed)
        more = {
            "scale": cfg.scale,
            "step": self.state.step,
            "heldout": finite(figures),
            "t2ialign": __version__,
        }
        base_of = {key: about[key] for key in ("reward", "options")}
        return trained.save(folder, tensors, {**base_of, "train": cfg.train, "data": cfg.data, **more})

    def facts(self) -> Facts:
        """The scorer, and what of it is trained."""
        words = f"{self.cfg.reward} ({type(self.reward).__name__}), squares of {self.squares.size} pixels"
        return replace(super().facts(), model=words)

    def write_card(self, metrics: dict[str, float]) -> None:
        """Write the model card: base and data, accuracy, and how to load the result."""
        cfg, data, dataset = self.cfg, self.data_card(), self.dataset()
        what = {"full": "all weights", "lora": f"LoRA of rank {cfg.lora_rank}, merged", "head": "its head"}
        card.write_scorer(
            cfg, reward=cfg.reward, data=data, dataset=dataset, trained=what[cfg.train], metrics=metrics
        )
