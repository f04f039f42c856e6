"""Claims on online reinforcement learning on the toy models: gain, cost, distance, several rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from scripts.experiments import stepwise
from scripts.experiments.claim import Claim, Figure, Row
from scripts.experiments.demo import Demo
from scripts.experiments.estimates import Points, Table, average, judged, line_figure
from scripts.experiments.online_cost import Cost
from scripts.experiments.trainers import SETTINGS
from scripts.experiments.training import JudgedRun, finish, train_and_judge
from t2ialign.evaluation.hack_index import Series, first_fired, in_base_std
from t2ialign.evaluation.monitor_journal import DIVERSITY, TRAINED, Kind
from t2ialign.evaluation.statistics import Estimate
from t2ialign.models.lora_targets import JOINT_AND_MLP
from t2ialign.tasks.demo import images, measuring
from t2ialign.tasks.demo.measuring import ALIGNED
from t2ialign.tasks.demo.rounds import TRAINING
from t2ialign.tasks.demo.settings import Settings
from t2ialign.toy.captions import draw_captions

GOALS = ((0.85, 15), (0.90, 10))
"""The held-out accuracies that are claimed, and the minutes that training may take for each."""
U_NET: dict[str, Any] = dict(SETTINGS["grpo"])
FLOW: dict[str, Any] = U_NET | {
    **{"model": "toy-flow", "lora_targets": JOINT_AND_MLP, "lr": 3e-3, "max_steps": 480},
}
SECONDS, PROMPTS = "seconds.json", "prompts.txt"
Runs = Mapping[str, Sequence[JudgedRun]]
"""Side -> its runs, by seed."""


class Online(Demo):
    """Training on 480 captions, repeats left out, by the oracle alone; measured as the demo measures."""

    gain = 0.0

    def __init__(self, model: str, training: Mapping[str, Any]) -> None:
        self.training = training
        self.settings = Settings(
            model=model,
            rounds=1,
            prompts_per_round=480,
            guidance_scales=(1, 2, 3, 4),
            choosing_prompts=80,
            curve_prompts=40,
        )
        self.text = self._text(*GOALS[0])

    def _text(self, goal: float, minutes: float) -> str:
        return (
            f"Online reinforcement learning by the oracle brings {self.settings.model} to >= "
            f"{100 * goal:.0f} % of held-out captions within {minutes:g} minutes, each model at its own best "
            "guidance, 95 % intervals apart"
        )

    def measure(self, folder: Path, seed: int) -> None:
        """Train, then measure base and trained model."""
        folder.mkdir(parents=True, exist_ok=True)
        taken = set(images.choosing_prompts(seed, self.settings))
        drawn = draw_captions(self.settings.prompts_per_round, 10_000 + seed, held_out=False, without=taken)
        texts = dict.fromkeys(drawn)
        (folder / PROMPTS).write_text("".join(f"{text}\n" for text in texts))
        values = {**self.training, "prompts": str(folder / PROMPTS)}
        stages = stepwise.Stages(folder / SECONDS)
        stages.run("training", lambda: finish("grpo", values, folder / TRAINING, seed))
        stages.run("measurement", lambda: measuring.measure(folder, seed, self.settings))

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """A row for each of `GOALS`, of the same runs."""
        row = self.at_best(self.pooled(folders), folders)
        slowest = max(seed["seconds"] for seed in row.measured["by_seed"])
        measured = {**row.measured, "seconds": slowest, "settings": dict(self.training)}
        rows = []
        for goal, minutes in GOALS:
            reached = row.measured[ALIGNED]["mean"] >= goal and slowest <= 60 * minutes
            rows.append(Row(self._text(goal, minutes), measured, row.ci95, row.holds and reached))
        return rows

    def by_seed(self, folders: Sequence[Path]) -> list[dict[str, Any]]:
        """Accuracies, best guidance and seconds of training of each seed."""
        results = []
        for folder in folders:
            measured = measuring.read(folder, self.settings)
            accuracies = {name: measuring.accuracy(rows).to_json() for name, rows in measured.heldout.items()}
            seconds = stepwise.Stages(folder / SECONDS).seconds["training"]
            results.append({**accuracies, "guidance_scale": measured.best, "seconds": round(seconds)})
        return results


class Watched(Claim):
    """Two runs on the same captions that differ in some settings, watched by a monitor on held-out captions.

    The oracle judges the monitor's images afterwards.
    """

    sides: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Name -> the settings that differ."""
    compared: ClassVar[tuple[str, str]]
    """The side that is claimed to do better, and the other one."""
    training: ClassVar[dict[str, Any]] = FLOW | {
        **{"monitor_rewards": ["toy-clip-b"], "monitor_steps": 10, "monitor_guidance_scale": 1},
        **{"monitor_images": 2, "max_steps": 96, "evaluate_every": 16},
    }
    train_prompts: int = 480
    heldout_prompts: int = 80

    def measure(self, folder: Path, seed: int) -> None:
        """Both runs, and the oracle on the monitor's images."""
        for name, changes in self.sides.items():
            training = {**self.training, **changes}
            sizes = (self.train_prompts, self.heldout_prompts)
            train_and_judge(folder / name, seed, training, *sizes, method="grpo")

    def runs(self, folders: Sequence[Path]) -> Runs:
        """The runs of each side, by seed."""
        return {name: [JudgedRun(folder / name) for folder in folders] for name in self.sides}

    def accuracy(self, runs: Runs) -> Table:
        """The oracle's verdicts, image by image."""
        return self._last(runs, lambda run: (run.prompts, run.passed))

    def watched(self, runs: Runs, kind: Kind, name: str) -> Table:
        """A number of the monitor, prompt by prompt."""
        return self._last(
            runs, lambda run: (list(dict.fromkeys(run.prompts)), run.journal.series(kind, name))
        )

    def _last(self, runs: Runs, of: Callable[[JudgedRun], tuple[list[str], Series]]) -> Table:
        """Numbers of the base and of the last step of each side, all seeds."""
        tables = []
        for each in zip(*runs.values(), strict=True):
            units, base = of(each[0])
            last = {side: of(run)[1][run.last] for side, run in zip(runs, each, strict=True)}
            tables.append(Table(units, {"base": base[0], **last}))
        return Table.pooled(self.seeds, tables)

    def changes(self, tables: Mapping[str, Table]) -> dict[str, dict[str, Estimate]]:
        """Of each table the sides less the base, and the one side less the other as "ONE less OTHER"."""
        one, other = self.compared
        return {
            name: {side: table.difference(side, "base") for side in self.sides}
            | {f"{one} less {other}": table.difference(one, other)}
            for name, table in tables.items()
        }

    def measured(
        self, tables: Mapping[str, Table], changes: Mapping[str, Mapping[str, Estimate]]
    ) -> dict[str, Any]:
        """What the row of a claim holds."""
        means = {name: table.means() for name, table in tables.items()}
        return {"means": means, "changes": changes, "settings": dict(self.training)}

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Oracle accuracy by step and side, and what is trained on, of the first seed."""
        runs = {name: each[0] for name, each in self.runs(folders).items()}
        accuracy: dict[str, Points] = {
            name: {step: average(passed) for step, passed in run.passed.items()} for name, run in runs.items()
        }
        trained: dict[str, Points] = {
            name: in_base_std(run.journal.series("scores", TRAINED)) or {} for name, run in runs.items()
        }
        return [
            line_figure("Oracle accuracy on the monitor's images", accuracy, "first seed"),
            line_figure("The trained reward, in standard deviations of the base", trained, "first seed"),
        ]


class Distance(Watched):
    """A reward that blank images please, with and without a distance to the reference in the loss."""

    text = (
        "Without a distance to the reference, climbing jpeg-compressibility costs held-out accuracy and "
        "diversity; with one neither falls significantly, and the reward still rises"
    )
    in_time = (
        "The monitor, which never sees the oracle, fires without the distance no later than accuracy is "
        "significantly below the base's, and accuracy is not significantly below where it has not fired"
    )
    sides: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "without": {"kl_weight": 0.0},
        "with": {"kl_weight": 4.0},
    }
    compared = ("with", "without")
    training: ClassVar[dict[str, Any]] = Watched.training | {"reward": "jpeg-compressibility"}

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """What is lost, then whether the monitor noticed; the latter holds if it does in every seed."""
        runs = self.runs(folders)
        tables = {
            "accuracy": self.accuracy(runs),
            "diversity": self.watched(runs, "statistics", DIVERSITY),
            "toy-clip-b": self.watched(runs, "scores", "toy-clip-b"),
            "reward": self.watched(runs, "scores", TRAINED),
        }
        changes = self.changes(tables)
        lost = all(changes[name]["without"].high < 0 for name in ("accuracy", "diversity"))
        held = all(changes[name]["with"].high >= 0 for name in ("accuracy", "diversity"))
        apart = all(changes[name]["with less without"].low > 0 for name in ("accuracy", "diversity"))
        rises = all(changes["reward"][side].low > 0 for side in self.sides)
        decisive = changes["accuracy"]["with less without"]
        noticed = [self._noticed(run) for run in runs["without"]]
        quiet = [self._noticed(run) for run in runs["with"]]
        in_time = all(seed["in_time"] for seed in (*noticed, *quiet))
        return [
            judged(self.text, self.measured(tables, changes), decisive, lost and held and apart and rises),
            judged(self.in_time, {"without": noticed, "with": quiet}, None, in_time),
        ]

    def _noticed(self, run: JudgedRun) -> dict[str, Any]:
        """When the monitor fired, and from when on accuracy was significantly below the base's."""
        below = [s for s in run.passed if s and run.table.difference(str(s), "0").high < 0]
        fired = first_fired(run.journal.falls())
        return {
            "fired": fired.to_json() if fired else None,
            "first_significantly_below": below[0] if below else None,
            "in_time": not below or bool(fired and fired.step <= below[0]),
        }


class TwoRewards(Watched):
    """Saturation, which is easy and varies little, beside the oracle's verdict, which is hard and varies."""

    text = (
        "Of an easy reward of small spread, at weight 0.3, and a hard one gdpo raises both; the sum of the "
        "scores, at the same weights, leaves the easy one behind"
    )
    easy: ClassVar[str] = "saturation"
    sides: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "gdpo": {"combine": "gdpo"},
        "scores": {"combine": "scores"},
    }
    compared = ("gdpo", "scores")
    training: ClassVar[dict[str, Any]] = Watched.training | {
        **{"reward": "toy-oracle,saturation", "reward_weights": (1.0, 0.3), "max_steps": 144},
    }

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """Both rewards after each way to combine them."""
        runs = self.runs(folders)
        tables = {"oracle": self.accuracy(runs), self.easy: self.watched(runs, "statistics", self.easy)}
        changes = self.changes(tables)
        both = all(changes[name]["gdpo"].low > 0 for name in tables)
        decisive = changes[self.easy]["gdpo less scores"]
        holds = both and decisive.low > 0
        return [judged(self.text, self.measured(tables, changes), decisive, holds)]


CLAIMS: tuple[Claim, ...] = (
    Online("toy", U_NET),
    Online("toy-flow", FLOW),
    Cost(),
    Distance(),
    TwoRewards(),
)
