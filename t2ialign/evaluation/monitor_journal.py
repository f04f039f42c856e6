"""The files of a run's monitor: monitor/scores.jsonl, one row an image and step, and the images."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from rewards.renamed import updated
from t2ialign.evaluation.hack_index import Fall, falls, heldout_mean
from t2ialign.io import atomic, jsonl
from t2ialign.io.messages import quoted

FOLDER, SCORES, ABOUT = "monitor", "scores.jsonl", "about.json"
TRAINED = "trained"
"""Key of the trained reward among the scores; `about` has its name."""
DIVERSITY = "diversity"
"""Key of the statistic for which more is better."""
MEAN = "mean of all"
"""The name of the mean of the held-out rewards and diversity in a verdict."""

Row = dict[str, Any]
"""{"step", "prompt", "seed", "file", "scores": {reward: number}, "statistics": {name: number}}"""
Kind = Literal["scores", "statistics"]
KINDS: tuple[Kind, ...] = ("scores", "statistics")


class Journal:
    """The rows of a run by step, and `about`: what they were measured with. Only whole steps count.

    Rewards and models that an earlier release named are read under today's names.
    """

    def __init__(self, run: Path) -> None:
        self.folder, self.about = run / FOLDER, dict[str, Any]()
        self._steps: dict[int, list[Row]] = {}
        rows = jsonl.read(self.folder / SCORES)
        if rows or (self.folder / ABOUT).is_file():
            about = _read_about(self.folder / ABOUT)
            self.about = {**about, **{key: updated(about[key]) for key in ("model", "trained", "embedding")}}
        for row in rows:
            _check_row(row, self.folder / SCORES)
            self._steps.setdefault(row["step"], []).append({**row, "scores": updated(row["scores"])})
        whole = len(self.about.get("prompts", ())) * self.about.get("images", 0)
        self._steps = {step: rows for step, rows in sorted(self._steps.items()) if len(rows) == whole}
        self._check_alike()

    @property
    def steps(self) -> list[int]:
        """The measured steps, in order; the base model's is 0."""
        return list(self._steps)

    def at(self, step: int) -> list[Row]:
        """The rows of one step."""
        return self._steps[step]

    def names(self, kind: Kind) -> list[str]:
        """The names of all scores or statistics, in order of first appearance."""
        return list(dict.fromkeys(name for rows in self._steps.values() for name in rows[0][kind]))

    def heldout(self) -> list[str]:
        """Names of the rewards that are not trained on."""
        return [name for name in self.names("scores") if name != TRAINED]

    def series(self, kind: Kind, name: str) -> dict[int, list[float]]:
        """Step -> mean of each prompt's images, for the steps that have it."""
        means = {}
        for step, rows in self._steps.items():
            if name in rows[0][kind]:
                prompts: dict[str, list[float]] = {}
                for row in rows:
                    prompts.setdefault(row["prompt"], []).append(row[kind][name])
                means[step] = [sum(values) / len(values) for values in prompts.values()]
        return means

    def falls(self, rewards: Sequence[str] | None = None) -> list[Fall]:
        """The falls of each held-out reward, or of the named ones, and of `heldout_mean`, at each step.

        None with fewer than two prompts.
        """
        if len(self.about.get("prompts", ())) < 2:
            return []
        names, trained = self.heldout() if rewards is None else rewards, self.series("scores", TRAINED)
        result = [
            fall for name in names for fall in falls(name, self.series("scores", name), trained or None)
        ]
        if mean := self.heldout_mean(names):
            result += falls(MEAN, mean, trained or None)
        return result

    def heldout_mean(self, rewards: Sequence[str]) -> dict[int, list[float]]:
        """The mean of these rewards and diversity in units of the base's spread; empty if only one has it."""
        members = [self.series("scores", name) for name in rewards]
        if rewards and (diversity := self.series("statistics", DIVERSITY)):
            members.append(diversity)
        return heldout_mean(members)

    def add(self, step: int, rows: Sequence[Row]) -> None:
        """Write the rows of one step at the end, and keep them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / ABOUT).exists():
            atomic.write_json(self.folder / ABOUT, self.about)
        jsonl.append(self.folder / SCORES, rows)
        self._steps[step] = list(rows)

    def _check_alike(self) -> None:
        """Raises ValueError unless each step has the same images, and each of its rows the same numbers."""
        first: list[tuple[str, str]] = []
        for step, rows in self._steps.items():
            images = sorted((row["prompt"], str(row["seed"])) for row in rows)
            first = first or images
            if images != first or any(row[k].keys() != rows[0][k].keys() for row in rows for k in KINDS):
                raise ValueError(
                    f"got rows of step {step} in {self.folder / SCORES} that differ in their prompts, seeds "
                    "or scores; expected the same images at each step; correct it"
                )

    def cut(self, step: int) -> None:
        """Drop what lies past a step, rows and images: a killed run may have left it."""
        self._steps = {s: rows for s, rows in self._steps.items() if s <= step}
        if (self.folder / SCORES).exists():
            jsonl.rewrite(self.folder / SCORES, _flat(self._steps.values()))
        for folder in self.folder.glob("step-*"):
            number = folder.name.removeprefix("step-")
            if number.isdecimal() and int(number) > step:
                shutil.rmtree(folder)


def read(run: Path) -> Journal:
    """The journal of a run for readers. Raises ValueError if it has none, or nothing whole in it."""
    file = run / FOLDER / SCORES
    if not file.is_file():
        raise ValueError(
            f"got no {file}; expected the output of a run with a monitor; train with monitor_prompts=..."
        )
    journal = Journal(run)
    if not journal.steps:
        raise ValueError(f"got no step measured in full in {file}; expected at least one; wait for the run")
    return journal


def _read_about(file: Path) -> dict[str, Any]:
    """Raises ValueError for one that is not what the monitor wrote: no row would count, all be lost."""
    about = atomic.read_json(file) if file.is_file() else {}
    kinds: dict[str, tuple[type, ...]] = {
        **dict.fromkeys(("method", "model"), (str,)),
        **dict.fromkeys(("trained", "embedding"), (str, NoneType)),
        **dict.fromkeys(("images", "steps"), (int,)),
        "guidance": (int, float),
        "prompts": (list,),
    }
    odd = [key for key, kind in kinds.items() if type(about.get(key, ())) not in kind]
    if not odd and not all(isinstance(text, str) for text in about["prompts"]):
        odd = ["prompts"]
    if odd or about["images"] < 1:
        raise ValueError(
            f"got {file}, which is missing or damaged; expected {(*odd, 'images')[0]} and the rest of what "
            f"the rows were measured with; restore it, or remove {file.parent} to measure all anew"
        )
    return about


def _check_row(row: Row, file: Path) -> None:
    """Raises ValueError for a row without a step, a prompt, a seed and numbers."""
    odd = [key for key, kind in (("step", int), ("prompt", str)) if type(row.get(key)) is not kind]
    odd += ["seed"] if type(row.get("seed")) not in (str, int) else []
    for kind in KINDS:
        values = row.get(kind)
        numbers = isinstance(values, dict) and all(type(v) in (int, float) for v in values.values())
        odd += [] if numbers else [kind]
    if odd:
        raise ValueError(
            f"got {quoted(row.get(odd[0]))} as {odd[0]} of a row in {file}; expected what the monitor wrote; "
            "correct it"
        )


def image_file(step: int, seed: int) -> str:
    """The path of an image within the monitor's folder."""
    return f"step-{step:06d}/{seed:05d}.png"


def _flat(steps: Iterable[list[Row]]) -> list[Row]:
    return [row for rows in steps for row in rows]
