"""The base of claims on step-level training: pairs of samples, settings, held-out images, timed stages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import t2ialign
from scripts.experiments import labelled_pairs
from scripts.experiments.claim import MeasuredOnce
from scripts.experiments.training import recipe
from t2ialign.io import atomic

ACCURACY = "accuracy.json"
PROMPTS, SAMPLES, PAIRS = "prompts.txt", "samples.jsonl", "judge.jsonl"
"""Captions to train on, pairs of samples of them, and these with pairs of renders beside them."""
SIZES = {"captions": 480, "samples": 6, "renders": 4000, "near_misses": 8}
"""captions, renders: drawn for samples and for renders. samples, near_misses: of each."""
GUIDANCE = (1.0, 2.0, 4.0)
"""The guidance scales of which each model gets its best."""
UNWATCHED: dict[str, Any] = {"evaluate_every": 10_000, "checkpoint_limit": 0, "trackers": ()}
MONITOR = ("monitor_rewards", "monitor_steps", "monitor_guidance_scale")
LENGTH = ("max_steps", "checkpoint_every")
STEPWISE = recipe("lpo_toy", "preset", "lr_schedule", *LENGTH, *MONITOR, **UNWATCHED)
"""Of lpo and its presets; beta and thresholds fit this world's latents and scores (docs/lpo.md)."""


class SteppedClaim(MeasuredOnce):
    """A claim on step-level training: the sizes of its pairs and of what is held out."""

    paper = "Zhang et al., NeurIPS 2025, arXiv 2502.01051"
    result = ACCURACY
    pairs: ClassVar[dict[str, int]] = SIZES
    options: ClassVar[dict[str, Any]] = labelled_pairs.SAMPLER
    heldout: int = 160
    images: int = 2

    def make_pairs(self, folder: Path, seed: int) -> None:
        """PROMPTS, SAMPLES and PAIRS in `folder`, what is there already left as it is."""
        captions, of_renders = (
            labelled_pairs.distinct_captions(self.pairs[name], 8000 + 10 * seed + i, held_out=False)
            for i, name in enumerate(("captions", "renders"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PROMPTS).write_text("".join(f"{caption}\n" for caption in captions))
        each, near_misses, first = self.pairs["samples"], self.pairs["near_misses"], 100_000 * (80 + seed)
        place = (folder / SAMPLES).with_suffix("")
        samples = labelled_pairs.sampled(place, captions, each, first_seed=first, options=self.options)
        renders = labelled_pairs.rendered(folder / "renders", of_renders, near_misses, seed=seed)
        labelled_pairs.joined(folder / PAIRS, [samples, renders])

    def held_out(self, seed: int) -> list[str]:
        """Captions that no training draws, each as often as images are made of it."""
        return held_out_captions(self.heldout, 8500 + seed, each=self.images)


def held_out_captions(count: int, draw: int, *, each: int) -> list[str]:
    """`count` drawn captions that no training draws, each as often as images are made of it."""
    from t2ialign.toy.captions import draw_captions

    captions = draw_captions(count, draw, held_out=True)
    return [text for text in captions for _ in range(each)]


def oracle_on(
    lora: Path | None, prompts: list[str], seed: int, sampler: Mapping[str, Any] = labelled_pairs.SAMPLER
) -> list[float]:
    """Whether the oracle passes an image of each prompt, with a LoRA or of the base; seeds never change."""
    first_seed, loras = 9_000_000 + 100_000 * seed, () if lora is None else lora
    samples = t2ialign.sample("toy", prompts, seed=first_seed, loras=loras, **sampler)
    passed: list[float] = t2ialign.score(samples, "toy-oracle")["toy-oracle"].tolist()
    return passed


def at_best_guidance(lora: Path | None, seed: int, *, choosing: int, heldout: int) -> dict[str, Any]:
    """The scale of `GUIDANCE` that is best on some training captions, and the verdicts on held-out ones.

    choosing, heldout: how many captions of each, an image of each.
    """
    prompts = labelled_pairs.distinct_captions(choosing, 15_000 + seed, held_out=False)
    best = {scale: sum(oracle_on(lora, prompts, 50 + seed, _sampler(scale))) for scale in GUIDANCE}
    scale = max(best, key=lambda one: (best[one], -one))
    captions = held_out_captions(heldout, 12_000 + seed, each=1)
    return {"guidance": scale, "passed": oracle_on(lora, captions, seed, _sampler(scale))}


def _sampler(scale: float) -> dict[str, Any]:
    return labelled_pairs.SAMPLER | {"guidance_scale": scale}


def checkpoint_of(run: Path, step: int) -> Path:
    """The LoRA of one checkpoint."""
    from t2ialign.training import checkpoint

    return checkpoint.path(run / "checkpoints", step)


class Stages:
    """Stage -> seconds of wall time, in one file; a stage that is there is not run again."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.seconds: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}

    def run(self, name: str, work: Callable[[], object]) -> float:
        """Do it, unless it is done -> its seconds; of one that was cut off only those of the last attempt."""
        if name not in self.seconds:
            began = time.monotonic()
            work()
            self.seconds[name] = time.monotonic() - began
            atomic.write_json(self.file, self.seconds)
        return self.seconds[name]

    def until(self, prefix: str) -> list[float]:
        """Seconds from the first to the end of each stage called prefix-1, prefix-2 ... in order."""
        ends, total = list[float](), 0.0
        while (name := f"{prefix}-{len(ends) + 1}") in self.seconds:
            total += self.seconds[name]
            ends.append(total)
        return ends
