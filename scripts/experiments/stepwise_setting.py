"""What claims on step-level training share: pairs of the base's samples, settings, pictures held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from scripts.experiments import labelled_pairs
from scripts.experiments.claim import Claim
from scripts.experiments.latent_reward import TRAINING

GUIDANCE, STEPS = 1.0, 10
"""Of training and of the pictures held out: none, where the base has the most to gain."""
SAMPLER = (f"--steps={STEPS}", "--guidance=2", "--batch-size=128")
"""Of the pairs: without guidance few samples are right."""
PROMPTS, SAMPLES, PAIRS = "prompts.txt", "samples.jsonl", "judge.jsonl"
"""Captions to train on, pairs of samples of them, and these with pairs of renders beside them."""
SIZES = {"captions": 480, "samples": 6, "renders": 4000, "near_misses": 8}
"""captions, renders: drawn for samples and for renders. samples, near_misses: of each."""
JUDGE = TRAINING
"""Of the latent reward, whose training counts as LPO's time."""
LORA: dict[str, Any] = {
    "model": "shapes",
    "lora_rank": 16,
    "lora_targets": ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"),
    "trackers": (),
    "evaluate_every": 10_000,
    "checkpoint_limit": 0,
}
STEPWISE: dict[str, Any] = {
    **LORA,
    "num_steps": STEPS,
    "guidance": GUIDANCE,
    "collect_prompts": 32,
    "rollout_batch": 32,
    "batch_size": 32,
    "beta": 50.0,
    "threshold_low": 0.1,
    "threshold_high": 0.3,
    "lr": 5e-4,
}
"""Of lpo and its presets; beta and thresholds fit this world's latents and scores (docs/lpo.md)."""


class SteppedClaim(Claim):
    """A claim on step-level training: the sizes of its pairs and of what is held out."""

    paper = "Zhang et al., NeurIPS 2025, arXiv 2502.01051"
    pairs: ClassVar[dict[str, int]] = SIZES
    options: tuple[str, ...] = SAMPLER
    heldout: int = 160
    images: int = 2

    def make_pairs(self, folder: Path, seed: int) -> None:
        """PROMPTS, SAMPLES and PAIRS in `folder`, what is there already left as it is."""
        from t2ialign.toy.captions import draw_captions

        texts = [
            list(dict.fromkeys(draw_captions(self.pairs[name], 8000 + 10 * seed + i, held_out=False)))
            for i, name in enumerate(("captions", "renders"))
        ]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PROMPTS).write_text("".join(f"{text}\n" for text in texts[0]))
        sampled = labelled_pairs.sampled(
            (folder / SAMPLES).with_suffix(""),
            texts[0],
            self.pairs["samples"],
            first_seed=8_000_000 + 100_000 * seed,
            options=self.options,
        )
        rendered = labelled_pairs.rendered(folder / "renders", texts[1], self.pairs["near_misses"], seed=seed)
        labelled_pairs.joined(folder / PAIRS, [sampled, rendered])

    def held_out(self, seed: int) -> list[str]:
        """Captions that no training draws, each as often as pictures are made of it."""
        from t2ialign.toy.captions import draw_captions

        captions = draw_captions(self.heldout, 8500 + seed, held_out=True)
        return [text for text in captions for _ in range(self.images)]


def judged(lora: Path | None, prompts: list[str], seed: int) -> list[float]:
    """Whether the oracle passes a picture of each prompt, with a LoRA or of the base; seeds never change."""
    import rewards
    from t2ialign.models.generate import generate
    from t2ialign.models.load import load_policy
    from t2ialign.models.lora_apply import load_lora

    policy = load_policy("shapes")
    if lora is not None:
        load_lora(policy, lora)
    first = 9_000_000 + 100_000 * seed
    seeds = range(first, first + len(prompts))
    with torch.no_grad():
        images = generate(policy, prompts, seeds, num_steps=STEPS, guidance=GUIDANCE, batch_size=128)
        found: list[float] = rewards.load("shapes-oracle")(images, prompts).tolist()
    return found


def checkpoint_of(run: Path, step: int) -> Path:
    """The LoRA of one checkpoint."""
    from t2ialign.training import checkpoint

    return checkpoint.path(run / "checkpoints", step)
