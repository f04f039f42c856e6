"""Claims on reward back-propagation: gradients, memory, over-optimisation and what presets cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from scripts.experiments.claim import Claim, Figure, Row
from scripts.experiments.estimates import Points, Table, average, bar_figure, judged, line_figure
from scripts.experiments.gradient import GradientClaim
from scripts.experiments.lora_mixing import MixingClaim
from scripts.experiments.memory import MemoryClaim
from scripts.experiments.training import RUN, TRAINING, JudgedRun, train_and_judge
from t2ialign.evaluation.hack_index import first_fired, in_base_std
from t2ialign.evaluation.monitor_journal import TRAINED
from t2ialign.methods.backprop import presets
from t2ialign.training.log import METRICS, read_rows

GAIN = 0.05
PRESETS = tuple(name for name in presets.PRESETS if name != "alignprop-k")
"""alignprop-k at K = 1 is draft-k."""
SIDES: dict[str, dict[str, Any]] = {
    "raw": {"reward": "toy-clip", "lr": 7e-4},
    "textnorm": {
        "reward": "rewards.scorers.textnorm",
        "reward_options": {"base": "toy-clip", "contrast": "toy", "scale": 50.0, "form": "log"},
        "lr": 5e-4,
    },
}
"""Settings of raw score and TextNorm; rates (of 5e-4, 7e-4 and 1e-3) and scale (of 20 and 50) by
trials on another seed."""


class OverOptimisationClaim(Claim):
    """The monitor holds out toy-clip-b and diversity; the oracle reads its images afterwards."""

    text = (
        "Training long on toy-clip raises it while oracle accuracy falls: some checkpoint lies "
        "significantly below the oracle's peak with a higher score"
    )
    in_time = (
        "The monitor, which never sees the oracle, fires no later than the first checkpoint significantly "
        "below the oracle's peak"
    )
    paper = "Clark et al., ICLR 2024, arXiv 2309.17400 (reward hacking)"
    seeds = (3, 4, 5)
    """Seeds other than 0 to 2, on whose runs the unit of the mean's threshold was settled."""
    train_prompts: int = 400
    heldout_prompts: int = 140
    training: ClassVar[dict[str, Any]] = TRAINING | {
        **{"guidance_scale": 4.0, "monitor_guidance_scale": 4.0, "monitor_images": 5},
        **{"max_steps": 240, "evaluate_every": 60},
    }

    def measure(self, folder: Path, seed: int) -> None:
        """Train with the monitor, then let the oracle judge the monitor's images."""
        train_and_judge(folder, seed, self.training, self.train_prompts, self.heldout_prompts)

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """Over-optimisation, then its discovery; each holds if it does in every seed."""
        happened, noticed = zip(*map(self._seed, folders), strict=True)
        worst = max((seed["last_minus_peak"] for seed in happened), key=lambda change: change.mean)
        happens = all(seed["falls"] and seed["reward_rises"] for seed in happened)
        in_time = happens and all(seed["in_time"] for seed in noticed)
        return [
            judged(self.text, {"by_seed": happened, "settings": self.training}, worst, happens),
            judged(self.in_time, {"by_seed": noticed}, None, in_time),
        ]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Trained and held-out score in units of the base's spread, and oracle accuracy, first seed."""
        run = JudgedRun(folders[0])
        labels = {TRAINED: "toy-clip (trained)", "toy-clip-b": "toy-clip-b (held out)"}
        changes: dict[str, Points] = {
            label: in_base_std(run.journal.series("scores", name)) or {} for name, label in labels.items()
        }
        accuracy = {step: average(passed) for step, passed in run.passed.items()}
        return [
            line_figure("Scores, change in standard deviations of the base", changes, "first seed"),
            line_figure("Oracle accuracy on the monitor's images", {"oracle": accuracy}, "first seed"),
        ]

    def _seed(self, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """What happened to the accuracy in one seed, and when the monitor noticed."""
        run = JudgedRun(folder)
        peak = max(run.passed, key=lambda step: sum(run.passed[step]))
        beyond_peak = {step: run.table.difference(str(step), str(peak)) for step in run.passed if step > peak}
        worse = [step for step, change in beyond_peak.items() if change.high < 0]
        score = {step: average(values) for step, values in run.journal.series("scores", TRAINED).items()}
        happened = {
            "oracle": run.table.means(),
            "peak": peak,
            "last_minus_peak": run.table.difference(str(run.last), str(peak)),
            "falls": bool(worse),
            "reward": score,
            "reward_rises": any(score[step] > score[peak] for step in worse),
        }
        falls = run.journal.falls()
        fired = first_fired(falls)
        fired_by: dict[str, int | None] = {}
        for name in dict.fromkeys(fall.reward for fall in falls):
            first = first_fired(fall for fall in falls if fall.reward == name)
            fired_by[name] = first.step if first else None
        noticed = {
            "first_significantly_below": worse[0] if worse else None,
            "fired_by": fired_by,
            "fired": fired.to_json() if fired else None,
            "in_time": bool(fired and worse and fired.step <= worse[0]),
        }
        return happened, noticed


class TextNormRewardClaim(Claim):
    """The same prompts, seeds, number of updates and sampler; the oracle judges held-out captions."""

    text = (
        "Climbing TextNorm(toy-clip) ends at a higher oracle accuracy than climbing toy-clip, 95 % "
        "intervals apart"
    )
    paper = "Kim et al., ICLR 2024, arXiv 2404.01863"
    max_steps: int = 200
    train_prompts: int = 400
    heldout_prompts: int = 130
    training: ClassVar[dict[str, Any]] = TRAINING

    def measure(self, folder: Path, seed: int) -> None:
        """Both runs, and the oracle on the monitor's images."""
        for name, changes in SIDES.items():
            length = {"max_steps": self.max_steps, "evaluate_every": self.max_steps}
            training = {**self.training, **changes, **length}
            train_and_judge(folder / name, seed, training, self.train_prompts, self.heldout_prompts)

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """The last checkpoint of each, over all images of all seeds."""
        table = self._passed(folders)
        raw, normed = table.mean("raw"), table.mean("textnorm")
        difference = table.difference("textnorm", "raw")
        measured = {**table.means(), "difference": difference, "settings": SIDES, "steps": self.max_steps}
        return [judged(self.text, measured, difference, normed.low > raw.high)]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Oracle accuracy after each, beside the base's."""
        each = self._passed(folders).means()
        pairs = {name: (each["base"], each[name]) for name in SIDES}
        return [bar_figure("Oracle accuracy", pairs, before="base", after="trained")]

    def _passed(self, folders: Sequence[Path]) -> Table:
        """Whether the oracle passes each image of the base and of the last checkpoint of each side."""
        tables = []
        for folder in folders:
            runs = {name: JudgedRun(folder / name) for name in SIDES}
            last = {name: run.passed[self.max_steps] for name, run in runs.items()}
            tables.append(Table(runs["raw"].prompts, {"base": runs["textnorm"].passed[0], **last}))
        return Table.pooled(self.seeds, tables)


class PresetClaim(Claim):
    """One preset on one seed: an ablation, with the learning rate and everything else alike."""

    paper = "Clark et al., ICLR 2024, arXiv 2309.17400; Prabhudesai et al. 2023, arXiv 2310.03739"
    seeds = (0,)
    single_seed = True
    train_prompts: int = 400
    heldout_prompts: int = 130
    training: ClassVar[dict[str, Any]] = TRAINING | {
        "max_steps": 200,
        "evaluate_every": 25,
        "accumulate": 1,
        "loss_scale": 1.0,
    }

    def __init__(self, preset: str) -> None:
        self.preset = preset
        self.text = f"{preset} raises oracle accuracy by >= {100 * GAIN:.0f} points within its budget"

    def measure(self, folder: Path, seed: int) -> None:
        """Train with the monitor, then let the oracle judge the monitor's images."""
        training = {name: value for name, value in self.training.items() if name != "k"}
        training["preset"] = self.preset
        if self.preset in ("refl", "drtune"):  # their hinges are in units of other rewards
            training |= {"loss": "maximise", "target": None}
            training["early_stop"] = training["num_inference_steps"] // 3
        train_and_judge(folder, seed, training, self.train_prompts, self.heldout_prompts)

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """It holds if a checkpoint lies that far above the base; the row has the whole line of the table."""
        (folder,) = folders
        run, images = JudgedRun(folder), self.training["batch_size"]
        gains = {step: run.table.difference(str(step), "0") for step in run.passed}
        reached = [step for step, gain in gains.items() if gain.mean >= GAIN]
        metrics = {row["step"]: row for row in read_rows(folder / RUN / METRICS)}
        measured = {
            "images_until_gain": reached[0] * images if reached else None,
            "images": run.last * images,
            "reward": [average(run.journal.series("scores", TRAINED)[step]) for step in (0, run.last)],
            "accuracy": run.table.mean(str(run.last)),
            "gain": gains[run.last],
            "best_gain": max(gain.mean for gain in gains.values()),
            "diversity": [metrics[step]["monitor/diversity"] for step in (0, run.last)],
            "seconds_of_updates": sum(images / row["images_per_s"] for step, row in metrics.items() if step),
            "settings": self.training,
        }
        return [judged(self.text, measured, gains[run.last], bool(reached))]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Oracle accuracy by images drawn for training."""
        images = self.training["batch_size"]
        curve = {step * images: average(passed) for step, passed in JudgedRun(folders[0]).passed.items()}
        title = f"Oracle accuracy by training images: {self.preset}"
        return [line_figure(title, {self.preset: curve})]


CLAIMS: tuple[Claim, ...] = (
    *(GradientClaim(), MemoryClaim(), OverOptimisationClaim(), TextNormRewardClaim(), MixingClaim()),
    *(PresetClaim(preset) for preset in PRESETS),
)
