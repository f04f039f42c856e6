"""LPO against SPO and offline DPO at the same wall time, what each needs before training counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from scripts.experiments import stepwise_setting as setting
from scripts.experiments.claim import Figure, Row
from scripts.experiments.latent_reward import FINE_TUNING
from scripts.experiments.resumed import fit
from scripts.experiments.timed_stages import Stages
from t2ialign.evaluation.statistics import bootstrap_ci, paired_difference
from t2ialign.io import atomic
from t2ialign.progress import Progress
from t2ialign.web.charts import Chart, Curve, lines

ACCURACY, SECONDS = "accuracy.json", "seconds.json"
BASE = "base"
GAIN = 0.12


@dataclass(frozen=True)
class Method:
    """How one method is trained, part by part, each part as long in updates."""

    trainer: str
    before: tuple[str, ...]
    """Stages whose time counts as its own."""
    settings: dict[str, Any]
    part: int
    """Updates of a part, after each of which accuracy is measured."""
    parts: int


METHODS = {
    "lpo": Method("lpo", ("pairs", "lrm"), {**setting.STEPWISE, "preset": "lpo"}, 60, 4),
    "spo": Method(
        "lpo", ("pairs", "clip"), {**setting.STEPWISE, "preset": "spo", "reward_scale": 30.0}, 40, 2
    ),
    "dpo": Method(
        "dpo",
        ("pairs",),
        {
            **setting.LORA,
            **{"gamma": 0.9, "discount": "sample", "num_steps": 20, "beta": 500.0, "safeguard": 0.5},
            **{"lr": 2e-3, "lr_warmup": 20, "batch_size": 32, "accumulate": 1},
        },
        360,
        4,
    ),
}
Part = TypeVar("Part")
FIRST_SEED_ONLY = ("spo", "clip")
"""What only the figure and the speed-up need."""


class StepwiseClaim(setting.SteppedClaim):
    """One set of pairs, from which DPO learns directly, and the judges of LPO and SPO are trained."""

    text = "LPO raises held-out oracle accuracy by >= 12 points"
    more = "LPO ends above the best of offline Diffusion-DPO within its wall time, reward model counted"
    paper = f"{setting.SteppedClaim.paper} (2.5 to 28 times faster than DPO)"
    methods: ClassVar[dict[str, Method]] = METHODS
    judges: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {
        "lrm": ("lrm", setting.JUDGE),
        "clip": ("reward", FINE_TUNING),
    }
    """Stage -> the trainer and settings of the judge it makes."""

    def measure(self, folder: Path, seed: int) -> None:
        """Make pairs and judges, train each method part by part, then measure every checkpoint.

        SPO is trained on the first seed only.
        """
        stages = Stages(folder / SECONDS)
        stages.run("pairs", partial(self.make_pairs, folder, seed))
        for name, (trainer, settings) in self._due(self.judges, seed).items():
            values = {**settings, "data": str(folder / setting.PAIRS)}
            stages.run(name, partial(fit, trainer, values, folder / name, seed))
        for name, method in self._due(self.methods, seed).items():
            for part in range(1, method.parts + 1):
                values = {**method.settings, **self._data(folder, name), "max_steps": part * method.part}
                values["checkpoint_every"] = method.part
                stages.run(f"{name}-{part}", partial(fit, method.trainer, values, folder / name, seed))
        if not (folder / ACCURACY).exists():
            atomic.write_json(folder / ACCURACY, self._measured(folder, seed))

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """The gain over the base, and LPO against DPO at equal wall time, over the images of all seeds."""
        found = [json.loads((folder / ACCURACY).read_text()) for folder in folders]
        curves = [self._curves(folder) for folder in folders]
        units = [
            f"{seed} {text}" for seed, each in zip(self.seeds, found, strict=True) for text in each["prompts"]
        ]
        passed = {
            name: [value for each in found for value in each["passed"][name][-1]] for name in ("lpo", "dpo")
        }
        base = [value for each in found for value in each["passed"][BASE][0]]
        paired = [
            value
            for each, curve in zip(found, curves, strict=True)
            for value in each["passed"]["dpo"][_best_within(curve["dpo"], curve["lpo"][-1][0])]
        ]
        gain, over_dpo = (paired_difference(passed["lpo"], other, units) for other in (base, paired))
        measured = {
            "base": bootstrap_ci(base, units).to_json(),
            **{name: bootstrap_ci(values, units).to_json() for name, values in passed.items()},
            "gain": gain.to_json(),
            "curves_by_seed": curves,
        }
        against = {
            "dpo_at_lpo_s_time": bootstrap_ci(paired, units).to_json(),
            "difference": over_dpo.to_json(),
            "speed_up_at_dpo_s_best": [_speed_up(curve["lpo"], curve["dpo"]) for curve in curves],
            "spo_speed_up_at_dpo_s_best": _speed_up(curves[0]["spo"], curves[0]["dpo"]),
        }
        return [
            Row(self.text, measured, (gain.low, gain.high), gain.mean >= GAIN and gain.low > 0),
            Row(self.more, against, (over_dpo.low, over_dpo.high), over_dpo.low > 0),
        ]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Accuracy by wall time, first seed."""
        curves = self._curves(folders[0])
        drawn = [
            Curve(name, [seconds for seconds, _ in curve], [y for _, y in curve])
            for name, curve in curves.items()
        ]
        chart = Chart("Oracle accuracy by wall time", drawn, across="seconds")
        return [Figure(chart.title, lines(chart), "first seed; pairs and judges count")]

    def _curves(self, folder: Path) -> dict[str, list[tuple[float, float]]]:
        """Method -> (seconds, accuracy), first the base after 0 seconds, then each part."""
        stages, found = Stages(folder / SECONDS), json.loads((folder / ACCURACY).read_text())["passed"]
        base, curves = float(np.mean(found[BASE][0])), {}
        for name in [name for name in self.methods if name in found]:
            before = sum(stages.seconds[stage] for stage in self.methods[name].before)
            times = [before + seconds for seconds in stages.until(name)]
            values = [float(np.mean(passed)) for passed in found[name]]
            curves[name] = [(0.0, base), *zip(times, values, strict=True)]
        return curves

    def _due(self, parts: dict[str, Part], seed: int) -> dict[str, Part]:
        every = seed == self.seeds[0]
        return {name: part for name, part in parts.items() if every or name not in FIRST_SEED_ONLY}

    def _data(self, folder: Path, name: str) -> dict[str, Any]:
        if name == "dpo":
            return {"data": str(folder / setting.SAMPLES)}
        judge = {
            "lpo": {"reward": "latent", "reward_options": {"path": str(folder / "lrm")}},
            "spo": {"reward": "trained", "reward_options": {"weights": str(folder / "clip")}},
        }[name]
        return {"prompts": str(folder / setting.PROMPTS), **judge}

    def _measured(self, folder: Path, seed: int) -> dict[str, Any]:
        """Whether the oracle passes each held-out image of the base and of each method's checkpoints."""
        prompts = self.held_out(seed)
        loras = {BASE: [None]} | {
            name: [
                setting.checkpoint_of(folder / name, part * method.part)
                for part in range(1, method.parts + 1)
            ]
            for name, method in self._due(self.methods, seed).items()
        }
        every = [(name, lora) for name, each in loras.items() for lora in each]
        passed: dict[str, list[list[float]]] = {name: [] for name in loras}
        for name, lora in Progress(every, desc="checkpoints", delay=3):
            passed[name].append(setting.judged(lora, prompts, seed))
        return {"prompts": prompts, "passed": passed}


def _best_within(curve: Sequence[tuple[float, float]], seconds: float) -> int:
    """The best part of a curve, from 0, of those that were done within so many seconds; the first if none."""
    done = [part for part, (at, _) in enumerate(curve[1:]) if at <= seconds]
    return max(done, key=lambda part: curve[part + 1][1], default=0)


def _speed_up(curve: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> float | None:
    """How many times sooner `curve` reaches the best accuracy of `other`; None if it does not."""
    seconds, best = max(other, key=lambda point: point[1])
    for (x_0, y_0), (x_1, y_1) in pairwise(curve):
        if y_1 >= best:
            at = x_1 if y_1 == y_0 else x_0 + (x_1 - x_0) * max(0.0, best - y_0) / (y_1 - y_0)
            return seconds / at if at else None
    return None
