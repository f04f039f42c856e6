"""Prompts and images of the demo: which captions, which seeds, and what the oracle says of each image."""

from __future__ import annotations

from pathlib import Path

from t2ialign.evaluation.manifest_scores import Score, score_manifest
from t2ialign.io import jsonl, manifest
from t2ialign.tasks import rendering
from t2ialign.tasks.demo.settings import Settings
from t2ialign.tasks.plan import Rendering, lora_texts
from t2ialign.toy.captions import draw_captions

SCORES = "scores.jsonl"
"""The file in a folder of measured images with the oracle's verdict on each."""
ORACLE = "toy-oracle"
SEEDS = 100_000
"""Each seed of a demo has so many seeds of images to train on, and as many to measure."""
MEASURED, CHOOSING = 1_000_000, 1_050_000
"""Seeds of held-out images, and of those for the choice of guidance, start here, far from the others."""


def choosing_prompts(seed: int, settings: Settings) -> list[str]:
    """Captions of the training split that are kept for the choice of the guidance scale."""
    return draw_captions(settings.choosing_prompts, 3000 + seed, held_out=False, unique=True)


def training_prompts(seed: int, settings: Settings) -> list[list[str]]:
    """The captions of each round."""
    size = settings.prompts_per_round
    taken = set(choosing_prompts(seed, settings))
    texts = draw_captions(settings.rounds * size, 1000 + seed, held_out=False, without=taken)
    return [texts[first : first + size] for first in range(0, len(texts), size)]


def heldout_prompts(seed: int, settings: Settings) -> list[str]:
    """The captions that both models are measured on."""
    return draw_captions(settings.heldout_prompts, 2000 + seed, held_out=True)


def sample(
    folder: Path,
    prompts: list[str],
    *,
    first_seed: int,
    settings: Settings,
    guidance_scale: float,
    per_prompt: int = 1,
    lora: Path | None = None,
) -> None:
    """Render the prompts with the model into a folder, going on with what a killed run left."""
    how = Rendering(
        model=settings.model,
        num_images_per_prompt=per_prompt,
        seed=first_seed,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=guidance_scale,
        batch_size=settings.batch_size,
        loras=() if lora is None else lora_texts(lora),
    )
    rendering.run(how, prompts, folder, resume=folder.exists())


def judge(folder: Path) -> list[Score]:
    """Let the oracle judge the images of a folder, those that it has not judged yet -> `scores_in` it."""
    import rewards

    score_manifest(rewards.load(ORACLE), ORACLE, manifest.read(folder), folder / SCORES)
    return scores_in(folder)


def scores_in(folder: Path) -> list[Score]:
    """The oracle's verdicts that were written into a folder, in the order of the seeds."""
    rows: list[Score] = jsonl.read(folder / SCORES)
    return sorted(rows, key=lambda row: row["seed"])
