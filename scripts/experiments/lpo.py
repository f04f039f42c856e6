"""Claims on latent rewards and step-level preference optimisation.

LPO is set against SPO and offline DPO at the same wall time, what each needs before training counted. Its
timestep range, threshold and beta are ablated one change at a time, all judged by one latent reward.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from scripts.experiments import latent_reward, stepwise
from scripts.experiments.claim import Claim, Figure, Row
from scripts.experiments.estimates import Table, average, judged, line_figure
from scripts.experiments.stepwise import ACCURACY
from scripts.experiments.training import finish, fit, recipe
from t2ialign.evaluation.provenance import source_hash
from t2ialign.io import atomic
from t2ialign.progress import Progress
from t2ialign.training.log import METRICS, read_rows

SECONDS, BASE = "seconds.json", "base"
GAIN = 0.12
SHARED = "ablation-judge"
"""Beside the claims: pairs, latent reward and the base's accuracy, made by the first ablation to run."""
ABLATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "t from 750 to 950": {"t_min": 750},
    "t from 0 to 450": {"t_max": 450},
    **{f"threshold {x:g}": {"threshold_low": x, "threshold_high": x} for x in (0.1, 0.2, 0.3, 0.4)},
    "threshold with the variance": {"threshold_schedule": "variance"},
    "threshold with t": {"threshold_schedule": "linear"},
    **{f"beta {beta:g}": {"beta": beta} for beta in (5.0, 15.0, 150.0, 500.0)},
}
"""Row of the table -> what is other than in stepwise.STEPWISE."""


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

    @property
    def ends(self) -> list[int]:
        """The updates after each part, from the start."""
        return [part * self.part for part in range(1, self.parts + 1)]


DPO = recipe("dpo_toy", "lr_schedule", *stepwise.LENGTH, **stepwise.UNWATCHED)
SPO: dict[str, Any] = {**stepwise.STEPWISE, "preset": "spo", "reward_scale": 30.0}
METHODS = {
    "lpo": Method("lpo", ("pairs", "lrm"), {**stepwise.STEPWISE, "preset": "lpo"}, 60, 4),
    "spo": Method("lpo", ("pairs", "clip"), SPO, 40, 2),
    "dpo": Method("dpo", ("pairs",), DPO, 360, 4),
}
FIRST_SEED_ONLY = ("spo", "clip")
"""Stages that only the figure and the speed-up need."""
Points = Sequence[tuple[float, float]]
"""(seconds, accuracy) of the base, and after each part."""


class StepwiseClaim(stepwise.SteppedClaim):
    """One set of pairs, from which DPO learns directly, and the judges of LPO and SPO are trained."""

    text = "LPO raises held-out oracle accuracy by >= 12 points"
    more = "LPO ends above the best of offline Diffusion-DPO within its wall time, reward model counted"
    paper = f"{stepwise.SteppedClaim.paper} (2.5 to 28 times faster than DPO)"
    methods: ClassVar[dict[str, Method]] = METHODS
    judges: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {
        "lrm": ("lrm", latent_reward.TRAINING),
        "clip": ("reward", latent_reward.FINE_TUNING),
    }
    """Stage -> the trainer and settings of the judge it makes."""

    def measurement(self, folder: Path, seed: int) -> dict[str, Any]:
        """Make pairs and judges, train each method part by part (SPO on the first seed), judge all parts."""
        stages = stepwise.Stages(folder / SECONDS)
        stages.run("pairs", partial(self.make_pairs, folder, seed))
        for name in self._due(self.judges, seed):
            trainer, settings = self.judges[name]
            values = {**settings, "data": str(folder / stepwise.PAIRS)}
            stages.run(name, partial(fit, trainer, values, folder / name, seed))
        for name in self._due(self.methods, seed):
            method = self.methods[name]
            values = {**method.settings, **_data(folder, name), "checkpoint_every": method.part}
            for part, end in enumerate(method.ends, 1):
                until = {**values, "max_steps": end}
                stages.run(f"{name}-{part}", partial(fit, method.trainer, until, folder / name, seed))
        return self._judged(folder, seed)

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """The gain over the base, and LPO against DPO at equal wall time, over the images of all seeds."""
        in_time = "dpo_at_lpo_s_time"
        curves, tables = [self._curves(folder) for folder in folders], []
        for seed, curve in zip(self.results(folders), curves, strict=True):
            passed = seed["passed"]
            columns = {BASE: passed[BASE][0], "lpo": passed["lpo"][-1], "dpo": passed["dpo"][-1]}
            columns[in_time] = passed["dpo"][_best_within(curve["dpo"], curve["lpo"][-1][0])]
            tables.append(Table(seed["prompts"], columns))
        table = Table.pooled(self.seeds, tables)
        means = table.means()
        gain, over_dpo = table.difference("lpo", BASE), table.difference("lpo", in_time)
        measured: dict[str, Any] = {name: means[name] for name in (BASE, "lpo", "dpo")}
        measured |= {"gain": gain, "curves_by_seed": curves}
        against = {
            in_time: means[in_time],
            "difference": over_dpo,
            "speed_up_at_dpo_s_best": [_speed_up(curve["lpo"], curve["dpo"]) for curve in curves],
            "spo_speed_up_at_dpo_s_best": _speed_up(curves[0]["spo"], curves[0]["dpo"]),
        }
        return [
            judged(self.text, measured, gain, gain.mean >= GAIN and gain.low > 0),
            judged(self.more, against, over_dpo, over_dpo.low > 0),
        ]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Accuracy by wall time, first seed."""
        curves = {name: dict(points) for name, points in self._curves(folders[0]).items()}
        note = "first seed; pairs and judges count"
        return [line_figure("Oracle accuracy by wall time", curves, note, across="seconds")]

    def _curves(self, folder: Path) -> dict[str, Points]:
        """Method -> (seconds, accuracy), first the base after 0 seconds, then each part."""
        stages, (result,) = stepwise.Stages(folder / SECONDS), self.results([folder])
        passed, curves = result["passed"], dict[str, Points]()
        for name in [name for name in self.methods if name in passed]:
            before = sum(stages.seconds[stage] for stage in self.methods[name].before)
            times = [0.0, *(before + seconds for seconds in stages.until(name))]
            values = map(average, [passed[BASE][0], *passed[name]])
            curves[name] = list(zip(times, values, strict=True))
        return curves

    def _due(self, names: Iterable[str], seed: int) -> list[str]:
        """Those of the names that are trained with this seed."""
        return [name for name in names if seed == self.seeds[0] or name not in FIRST_SEED_ONLY]

    def _judged(self, folder: Path, seed: int) -> dict[str, Any]:
        """Whether the oracle passes each held-out image of the base and of each method's checkpoints."""
        prompts = self.held_out(seed)
        passed = {BASE: [stepwise.oracle_on(None, prompts, seed)]}
        for name in self._due(self.methods, seed):
            method = self.methods[name]
            loras = [stepwise.checkpoint_of(folder / name, step) for step in method.ends]
            progress = Progress(loras, desc=f"checkpoints of {name}", delay=3)
            passed[name] = [stepwise.oracle_on(lora, prompts, seed) for lora in progress]
        return {"prompts": prompts, "passed": passed}


class AblationClaim(stepwise.SteppedClaim):
    """One row of the table of ablations, on one seed."""

    seeds = (0,)
    single_seed = True
    judge: ClassVar[dict[str, Any]] = latent_reward.TRAINING
    training: ClassVar[dict[str, Any]] = {**stepwise.STEPWISE, "preset": "lpo", "max_steps": 160}

    def __init__(self, name: str) -> None:
        self.changed = ABLATIONS[name]
        self.text = f"LPO raises oracle accuracy: {name}"

    def shared(self, folder: Path, seed: int) -> Path:
        """The folder of the judge; that of other code is left alone."""
        return folder.parents[1] / SHARED / source_hash()

    def measurement(self, folder: Path, seed: int) -> dict[str, Any]:
        """Train with the shared judge, and let the oracle judge images of held-out captions."""
        shared, prompts = self.shared(folder, seed), self.held_out(seed)
        self.make_pairs(shared, seed)
        finish("lrm", {**self.judge, "data": str(shared / stepwise.PAIRS)}, shared / "lrm", seed)
        if not (shared / ACCURACY).exists():
            atomic.write_json(shared / ACCURACY, stepwise.oracle_on(None, prompts, seed))
        values = {**self.training, **self.changed, **_data(shared, "lpo"), "checkpoint_every": 40}
        finish("lpo", values, folder / "run", seed)
        lora = stepwise.checkpoint_of(folder / "run", values["max_steps"])
        base = json.loads((shared / ACCURACY).read_text())
        return {"prompts": prompts, "base": base, "passed": stepwise.oracle_on(lora, prompts, seed)}

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """It holds if the gain is above chance; the row has the whole line of the table."""
        (folder,), (result,) = folders, self.results(folders)
        table = Table(result["prompts"], {name: result[name] for name in ("base", "passed")})
        gain = table.difference("passed", "base")
        rounds = [row for row in read_rows(folder / "run" / METRICS) if "step_reward" in row]
        measured = {
            "accuracy": table.mean("passed"),
            "gain": gain,
            "step_reward": [rounds[0]["step_reward"], rounds[-1]["step_reward"]],
            "rounds": len(rounds),
            "valid_rows_a_round": average([row["valid"] for row in rounds]),
            "valid_by_band": [average([row[f"valid_band_{i}"] for row in rounds]) for i in range(4)],
            "settings": self.changed,
        }
        return [judged(self.text, measured, gain, gain.low > 0)]


def _data(folder: Path, name: str) -> dict[str, Any]:
    """The data of a method: DPO from pairs, the others from prompts and a judge."""
    if name == "dpo":
        return {"data": str(folder / stepwise.SAMPLES)}
    reward, option, judge = {"lpo": ("latent", "path", "lrm"), "spo": ("trained", "weights", "clip")}[name]
    options = {option: str(folder / judge)}
    return {"prompts": str(folder / stepwise.PROMPTS), "reward": reward, "reward_options": options}


def _best_within(curve: Points, seconds: float) -> int:
    """The best part of a curve, from 0, of those that were done within so many seconds; the first if none."""
    done = [part for part, (at, _) in enumerate(curve[1:]) if at <= seconds]
    return max(done, key=lambda part: curve[part + 1][1], default=0)


def _speed_up(curve: Points, other: Points) -> float | None:
    """How many times sooner `curve` reaches the best accuracy of `other`; None if it does not."""
    seconds, best = max(other, key=lambda point: point[1])
    for (x_0, y_0), (x_1, y_1) in pairwise(curve):
        if y_1 >= best:
            at = x_1 if y_1 == y_0 else x_0 + (x_1 - x_0) * max(0.0, best - y_0) / (y_1 - y_0)
            return seconds / at if at else None
    return None


CLAIMS: tuple[Claim, ...] = (
    *(latent_reward.LatentRewardClaim(), StepwiseClaim()),
    *(AblationClaim(name) for name in ABLATIONS),
)
