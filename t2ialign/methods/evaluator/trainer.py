"""Fitting a light judge of key points to annotated images: a head on the frozen embeddings of a CLIP.

Every image and description is embedded once, into a cache; the fit itself takes seconds to minutes. Some
prompts never reach it: by them it is measured, kind by kind.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rewards
from rewards.device import default_device
from rewards.keypoints import evaluator_head
from rewards.keypoints.evaluator_head import Features, MatchHead
from rewards.keypoints.taxonomy import kinds
from t2ialign import config
from t2ialign.data.cache.stored import held_out
from t2ialign.data.sources import identity
from t2ialign.evaluation.keypoints.agreement import OVERALL, Agreement, agreement, markdown
from t2ialign.evaluation.keypoints.annotated import read_annotated
from t2ialign.evaluation.keypoints.embedded import Embedded, embed
from t2ialign.evaluation.statistics import form
from t2ialign.io import atomic
from t2ialign.io.locks import check_alone, holding_output
from t2ialign.methods.evaluator import fit as evaluator_fit
from t2ialign.methods.evaluator.config import Config
from t2ialign.methods.evaluator.fit import Schedule
from t2ialign.progress import Progress, quiet
from t2ialign.training.facts import Facts
from t2ialign.training.inputs import check_inputs
from t2ialign.training.output import check_unused
from t2ialign.training.plan import count, data_words, device_words, text
from t2ialign.version import __version__

CONFIG_FILE, FIGURES, CARD = "config.yaml", "heldout.json", "README.md"

LOAD = """```python
import rewards

evaluator = rewards.load("evaluator", backend="head", weights="{output}")
```
```bash
t2ialign keypoints SAMPLES --backend head --weights {output}
```"""


class Trainer:
    """Embeds, fits, measures. Raises ValueError for an output in use."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        check_alone(f"output={cfg.output}")
        if cfg.resume is None:
            check_unused(cfg.output)
        check_inputs(cfg)
        cfg.output.mkdir(parents=True, exist_ok=True)
        config.save(cfg, cfg.output / CONFIG_FILE)

    @holding_output
    def fit(self) -> None:
        """Leave head, figures and card in the output folder.

        Raises ValueError for data, caches and scorers that do not fit, and too few prompts to hold some out.
        """
        cfg, known = self.cfg, self.embedded()
        held = held_out(known.numbers, known.prompts, cfg.holdout, cfg.seed)
        alike = ("epochs", "batch_size", "lr", "weight_decay", "width", "patience", "seed")
        same: dict[str, Any] = {name: getattr(cfg, name) for name in alike}
        schedule = Schedule(**same, held_out=cfg.validation)
        if not quiet():
            print(self.plan(known, held), file=sys.stderr)
        with Progress(total=cfg.epochs, desc="fit", unit="epoch", delay=3) as bar:
            fitted = evaluator_fit.fit(*known.part(~held), schedule, after_epoch=lambda _: bar.update())
        figures = measure(fitted.head, *known.part(held))
        evaluator_head.save(fitted.head, cfg.output, reward=cfg.reward, options=self.options())
        atomic.write_json(cfg.output / FIGURES, {name: one.to_json() for name, one in figures.items()})
        facts = {
            "Data": f"{len(known.labels)} key points of {len(known.prompts)} prompts from {cfg.data}",
            "Held out": f"{len(np.unique(known.numbers[held]))} prompts, neither fitted to nor used to stop",
            "Epochs": f"{len(fitted.losses)}, the best by the loss on other prompts is kept",
            "Every setting": f"`{CONFIG_FILE}`",
        }
        atomic.write_text(cfg.output / CARD, card(cfg, facts, figures))
        best = figures[OVERALL].balanced
        told = "not known: every kind has one label only" if best is None else f"{form(best, scale=100)} %"
        print(f"balanced accuracy on held-out prompts {told}; the head is in {cfg.output}")

    def plan(self, known: Embedded, held: np.ndarray) -> str:
        """The run plan: how many key points are fitted to, and what the held-out ones can show."""
        cfg, out = self.cfg, int(held.sum())
        facts = Facts(cfg.reward, unit="key points", train=len(held) - out, heldout=out, accuracy=True)
        rows = {
            "model": f"a head of {cfg.width} units on frozen embeddings of {cfg.reward}",
            "device": device_words(known.labels.device, 1),
            "precision": "fp32",
            "trainable": f"{count(MatchHead(known.features.image.shape[-1], width=cfg.width)):,} parameters",
            "data": data_words(facts),
            "batch": f"{cfg.batch_size} key points",
            "epochs": f"at most {cfg.epochs}, fewer after {cfg.patience} without a better validation loss",
            "checkpoints": "none; embeddings are kept in the cache",
        }
        return text("evaluator", rows, [])

    def embedded(self) -> Embedded:
        """All key points with their embeddings, from the cache where it has them."""
        cfg = self.cfg
        read = {"data": cfg.data, "split": cfg.split, "contents": identity(cfg.data)}
        return embed(
            read_annotated(cfg.data, split=cfg.split),
            cfg.cache or cfg.output / "cache",
            self.base,
            images=cfg.images,
            made_of={**read, "reward": cfg.reward, **self.options()},
        )

    def base(self) -> rewards.TwoTower:
        """The scorer with the frozen towers. Raises ValueError for one without two."""
        device = default_device()
        loaded = rewards.load(self.cfg.reward, **self.options())
        return evaluator_head.two_tower(loaded).to(device).eval()

    def options(self) -> dict[str, Any]:
        """The options of the scorer, wherever it is loaded from later."""
        if self.cfg.weights is None:
            return {}
        local = Path(self.cfg.weights).expanduser()
        return {"weights": str(local.resolve()) if local.exists() else self.cfg.weights}


def measure(head: MatchHead, features: Features, labels: Tensor, prompts: list[str]) -> dict[str, Agreement]:
    """The head's agreement with the annotations, by kind and over all."""
    with torch.no_grad():
        verdicts = (head(features) > 0).tolist()
    named = [list(kinds())[place] for place in features.kind.tolist()]
    return agreement(verdicts, (labels > 0.5).tolist(), named, prompts)


def card(cfg: Config, facts: dict[str, str], figures: dict[str, Agreement]) -> str:
    """The model card in Markdown: data, scorer, loading, accuracy on held-out prompts."""
    lines = [
        *("---", "license: other", "license_name: as-base-model-and-data"),
        *("tags: [text-to-image, reward-model, key-points, t2ialign]", "---", ""),
        *(f"# {cfg.output.name}", ""),
        f"A judge of key points on the frozen embeddings of `{cfg.reward}`, by t2ialign {__version__}.",
        *("", *(f"- {name}: {value}" for name, value in facts.items())),
        *("", "## Load it", "", LOAD.format(output=cfg.output)),
        *("", "## Held-out prompts", "", *markdown(figures), ""),
        "Matching: the share of key points that the images show. Balanced: the mean over matches and",
        "mismatches of kinds that have both; 50 is chance. Intervals are 95 %, resampled by prompt.",
    ]
    return "\n".join(lines) + "\n"
