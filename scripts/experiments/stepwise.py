"""What claims on step-level training share: pairs of samples, settings, held-out images, timed stages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch

from scripts.experiments import labelled_pairs
from scripts.experiments.claim import Claim
from scripts.experiments.training import LORA
from t2ialign.io import atomic

GUIDANCE, STEPS = 1.0, 10
"""Of training and of the held-out images: no guidance, where the base has the most to gain."""
SAMPLER: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": 2.0, "batch_size": 128}
"""Of the pairs: without guidance few samples are right."""
PROMPTS, SAMPLES, PAIRS = "prompts.txt", "samples.jsonl", "judge.jsonl"
"""Captions to train on, pairs of samples of them, and these with pairs of renders beside them."""
SIZES = {"captions": 480, "samples": 6, "renders": 4000, "near_misses": 8}
"""captions, renders: drawn for samples and for renders. samples, near_misses: of each."""
TOY_LORA: dict[str, Any] = {**LORA, "model": "toy", "evaluate_every": 10_000, "checkpoint_limit": 0}
STEPWISE: dict[str, Any] = {
    **TOY_LORA,
    **{
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "collect_prompts": 32,
        "rollout_batch": 32,
        "batch_size": 32,
    },
    **{"beta": 50.0, "threshold_low": 0.1, "threshold_high": 0.3, "lr": 5e-4},
}
"""Of lpo and its presets; beta and thresholds fit this world's latents and scores (docs/lpo.md)."""


class SteppedClaim(Claim):
    """A claim on step-level training: the sizes of its pairs and of what is held out."""

    paper = "Zhang et al., NeurIPS 2025, arXiv 2502.01051"
    pairs: ClassVar[dict[str, int]] = SIZES
    options: ClassVar[dict[str, Any]] = SAMPLER
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
        samples = labelled_pairs.sampled(
            (folder / SAMPLES).with_suffix(""),
            captions,
            self.pairs["samples"],
            first_seed=8_000_000 + 100_000 * seed,
            options=self.options,
        )
        near_misses = self.pairs["near_misses"]
        renders = labelled_pairs.rendered(folder / "renders", of_renders, near_misses, seed=seed)
        labelled_pairs.joined(folder / PAIRS, [samples, renders])

    def held_out(self, seed: int) -> list[str]:
        """Captions that no training draws, each as often as images are made of it."""
        from t2ialign.toy.captions import draw_captions

        captions = draw_captions(self.heldout, 8500 + seed, held_out=True)
        return [text for text in captions for _ in range(self.images)]


def oracle_on(lora: Path | None, prompts: list[str], seed: int) -> list[float]:
    """Whether the oracle passes an image of each prompt, with a LoRA or of the base; seeds never change."""
    import rewards
    from t2ialign.models.generate import generate
    from t2ialign.models.load import load_policy
    from t2ialign.models.lora_apply import load_lora

    policy = load_policy("toy")
    if lora is not None:
        load_lora(policy, lora)
    first = 9_000_000 + 100_000 * seed
    seeds = range(first, first + len(prompts))
    with torch.no_grad():
        images = generate(
            policy, prompts, seeds, num_inference_steps=STEPS, guidance_scale=GUIDANCE, batch_size=128
        )
        passed: list[float] = rewards.load("toy-oracle")(images, prompts).tolist()
    return passed


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
            self.file.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_json(self.file, self.seconds)
        return self.seconds[name]

    def until(self, prefix: str) -> list[float]:
        """Seconds from the first to the end of each stage called prefix-1, prefix-2 ... in order."""
        ends, total = list[float](), 0.0
        while (name := f"{prefix}-{len(ends) + 1}") in self.seconds:
            total += self.seconds[name]
            ends.append(total)
        return ends
