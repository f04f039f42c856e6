"""Rounds of an alignment on the model's own images: sample, let the oracle judge, pair, train.

The pairs of a round are made by the model of the round before, and its training starts from that LoRA. The
first round samples, and the last one trains, in the folders where a demo of one round does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2ialign.io import jsonl
from t2ialign.tasks import training
from t2ialign.tasks.demo import images
from t2ialign.tasks.demo.settings import DEFAULT, Settings
from t2ialign.tasks.training import METRICS, WEIGHTS

TRAINING = "training"
"""The folder of the last round's training, which holds the aligned model's LoRA."""


@dataclass(frozen=True)
class Round:
    """Where one round's files are; rounds are numbered from 0."""

    output: Path
    number: int
    rounds: int

    @property
    def samples(self) -> Path:
        """The images that were sampled and judged."""
        return (self.output if self.number == 0 else self._folder) / "samples"

    @property
    def pairs(self) -> Path:
        """The preference pairs made of them."""
        return self.samples.parent / "pairs.jsonl"

    @property
    def training(self) -> Path:
        """The training run, with its LoRA."""
        return (self.output if self.number == self.rounds - 1 else self._folder) / TRAINING

    @property
    def _folder(self) -> Path:
        return self.output / f"round_{self.number + 1}"


def places(output: Path, settings: Settings = DEFAULT) -> list[Round]:
    """All rounds of a demo."""
    return [Round(output, number, settings.rounds) for number in range(settings.rounds)]


def run(output: Path, seed: int, settings: Settings = DEFAULT) -> None:
    """Do the rounds that are missing, one after the other."""
    lora = None
    for place, prompts in zip(places(output, settings), images.training_prompts(seed, settings), strict=True):
        make_pairs(place, prompts, seed, settings, lora)
        train(place, seed, settings, lora)
        lora = place.training


def make_pairs(place: Round, prompts: list[str], seed: int, settings: Settings, lora: Path | None) -> None:
    """Sample the current model and pair, within each prompt, the images that pass with those that fail."""
    from t2ialign.toy.preferences import write_pairs

    if place.pairs.exists():
        return
    images.sample(
        place.samples,
        prompts,
        first_seed=seed * images.SEEDS + place.number * len(prompts) * settings.images_per_prompt,
        settings=settings,
        guidance_scale=settings.guidance_scale,
        per_prompt=settings.images_per_prompt,
        lora=lora,
    )
    write_pairs(place.samples, place.pairs)


def train(place: Round, seed: int, settings: Settings, lora: Path | None) -> None:
    """Diffusion-DPO on the round's pairs from the LoRA so far, or from the newest checkpoint."""
    from t2ialign.training import checkpoint

    output = place.training
    if (output / WEIGHTS).exists():
        return
    values = {
        **{"model": settings.model, "data": str(place.pairs), "output": output, "init_lora": lora},
        **{"seed": seed + images.SEEDS * place.number, **settings.training},
        "resume": "latest" if checkpoint.whole(output / "checkpoints") else None,
    }
    training.run("dpo", settings=values)


def count_pairs(output: Path, settings: Settings = DEFAULT) -> int:
    """The number of pairs of all rounds."""
    return sum(len(jsonl.read(place.pairs)) for place in places(output, settings))


def metrics(output: Path, settings: Settings = DEFAULT) -> list[dict[str, float]]:
    """The metrics of all rounds, their steps numbered through."""
    rows: list[dict[str, float]] = []
    for place in places(output, settings):
        before = place.number * settings.training["max_steps"]
        logged = jsonl.read(place.training / METRICS)
        rows += [{**row, "step": row["step"] + before} for row in logged if row["step"] or not before]
    return rows
