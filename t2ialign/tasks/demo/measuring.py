"""The measurement of the demo: base and aligned model, each at its own best guidance and over guidance.

The best scale is chosen on captions that are neither trained on nor measured. Both models draw the same
held-out captions from the same seeds. No image is sampled twice: at a model's best scale the curve has the
first of its held-out images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rewards.toy.captions import parse
from t2ialign.evaluation.comparison import Summary, summarise
from t2ialign.evaluation.manifest_scores import Score
from t2ialign.evaluation.statistics import Estimate, bootstrap_ci, paired_difference
from t2ialign.io import atomic
from t2ialign.tasks.demo import images
from t2ialign.tasks.demo.rounds import TRAINING
from t2ialign.tasks.demo.settings import DEFAULT, Settings
from t2ialign.toy.captions import has_new_combination

BASE, ALIGNED = MODELS = ("base", "aligned")
CHOICE, CHOOSING, CURVE = "guidance.json", "choosing", "over_guidance"
"""The file with each model's best scale, and the folders of images for the choice and for the curve."""


@dataclass(frozen=True)
class Measured:
    """The oracle's verdicts on held-out images, by model; rows in the order of the seeds."""

    best: dict[str, float]
    """The guidance scale that is best for each model; empty for several seeds, of which each has its own."""
    heldout: dict[str, list[Score]]
    """All held-out images at that scale."""
    over_guidance: dict[str, dict[float, list[Score]]]
    """The first held-out images by guidance scale."""

    def columns(self, *, new_combinations: bool = False) -> dict[str, Summary]:
        """Estimates of base, aligned and their paired difference, for all and for each category.

        new_combinations: of captions alone that name a combination which training never shows.
        """
        return compare(
            *(
                [row for row in self.heldout[model] if not new_combinations or is_new(row["prompt"])]
                for model in MODELS
            )
        )


def choose(output: Path, seed: int, settings: Settings = DEFAULT) -> dict[str, float]:
    """Each model's best guidance scale, the lower one of equals; measured once."""
    if not (output / CHOICE).exists():
        prompts, first = images.choosing_prompts(seed, settings), images.CHOOSING + seed * images.SEEDS
        best = {}
        for model in MODELS:
            passed = {}
            for scale in settings.guidance_scales:
                folder = _at(output / CHOOSING, model, scale)
                _sample(folder, model, prompts, first, scale, output=output, settings=settings)
                passed[scale] = sum(row["score"] for row in images.judge(folder))
            best[model] = max(passed, key=lambda scale: (passed[scale], -scale))
        atomic.write_json(output / CHOICE, best)
    return dict(atomic.read_json(output / CHOICE))


def measure(output: Path, seed: int, settings: Settings = DEFAULT) -> Measured:
    """Sample and judge the held-out captions with both models, at every scale."""
    best, first = choose(output, seed, settings), images.MEASURED + seed * images.SEEDS
    prompts = images.heldout_prompts(seed, settings)
    for model in MODELS:
        for scale in dict.fromkeys((best[model], *settings.guidance_scales)):
            folder, count = output / model, len(prompts)
            if scale != best[model]:
                folder, count = _at(output / CURVE, model, scale), settings.curve_prompts
            _sample(folder, model, prompts[:count], first, scale, output=output, settings=settings)
            images.judge(folder)
    return read(output, settings)


def read(output: Path, settings: Settings = DEFAULT) -> Measured:
    """What `measure` left in the folder."""
    best = dict(atomic.read_json(output / CHOICE))
    heldout = {model: images.scores_in(output / model) for model in MODELS}
    curve = {
        model: {
            scale: heldout[model][: settings.curve_prompts]
            if scale == best[model]
            else images.scores_in(_at(output / CURVE, model, scale))
            for scale in settings.guidance_scales
        }
        for model in MODELS
    }
    return Measured(best, heldout, curve)


def pooled(several: Sequence[Measured]) -> Measured:
    """The verdicts of demos of several seeds together, of each at the scales that were best there."""
    return Measured(
        {},
        {model: [row for one in several for row in one.heldout[model]] for model in MODELS},
        {
            model: {
                scale: [row for one in several for row in one.over_guidance[model][scale]]
                for scale in several[0].over_guidance[model]
            }
            for model in MODELS
        },
    )


def at(measured: Measured, scale: float) -> dict[str, Estimate]:
    """Base, aligned and their paired difference at one guidance scale."""
    base, aligned = (measured.over_guidance[model][scale] for model in MODELS)
    return {BASE: accuracy(base), ALIGNED: accuracy(aligned), "difference": gain(base, aligned)}


def compare(base: Sequence[Score], aligned: Sequence[Score]) -> dict[str, Summary]:
    """Verdicts on the same captions and seeds -> estimates of base, aligned and their paired difference."""
    import rewards

    columns = summarise(rewards.load(images.ORACLE), aligned, base)
    return {BASE: columns["baseline"], ALIGNED: columns["scores"], "difference": columns["difference"]}


def accuracy(rows: Sequence[Score]) -> Estimate:
    """The share of images that pass, bootstrapped by prompt."""
    return bootstrap_ci([row["score"] for row in rows], [row["prompt"] for row in rows])


def gain(base: Sequence[Score], aligned: Sequence[Score]) -> Estimate:
    """The paired difference of two models' verdicts, row by row, bootstrapped by prompt."""
    after, before = ([row["score"] for row in rows] for rows in (aligned, base))
    return paired_difference(after, before, [row["prompt"] for row in base])


def is_new(prompt: str) -> bool:
    """Whether a caption names a combination that training never shows."""
    return has_new_combination(parse(prompt))


def _at(folder: Path, model: str, scale: float) -> Path:
    return folder / f"{model}_{scale:g}"


def _sample(
    folder: Path,
    model: str,
    prompts: list[str],
    first: int,
    scale: float,
    *,
    output: Path,
    settings: Settings,
) -> None:
    lora = output / TRAINING if model == ALIGNED else None
    images.sample(folder, prompts, first_seed=first, settings=settings, guidance_scale=scale, lora=lora)
