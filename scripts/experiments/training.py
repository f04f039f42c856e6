"""Training within a claim: a run that was cut off goes on, and one that is finished is left alone.

A judged run is one that climbs a reward on captions of the toy world, with the oracle's verdicts on the
images that its monitor drew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import t2ialign
from scripts.experiments.estimates import Table
from t2ialign.config import read_yaml
from t2ialign.evaluation.monitor_journal import read
from t2ialign.io import atomic
from t2ialign.io.inside import inside
from t2ialign.progress import Progress

RECIPES = Path(__file__).parents[1] / "configs"
FILES = ("data", "prompts", "monitor_prompts", "reward_options", "output")
"""Settings of a recipe that name files; each claim has its own."""


def recipe(name: str, *without: str, **changes: Any) -> dict[str, Any]:
    """The settings of scripts/configs/NAME.yaml but `FILES` and those in `without`, with changes."""
    values = read_yaml(RECIPES / f"{name}.yaml")
    return {key: value for key, value in values.items() if key not in (*FILES, *without)} | changes


ORACLE, RUN = "oracle.json", "run"
TRAINING = recipe(
    "backprop_toy",
    *("model", "lr_schedule", "lr_warmup", "ema"),
    **{"preset": "draft-k", "k": 3, "num_inference_steps": 8, "guidance_scale": 1, "lr": 7e-4},
    **{"monitor_steps": 8, "monitor_guidance_scale": 1, "monitor_images": 4},
    **{"lora_targets": ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]},
    **{"max_steps": 400, "trackers": ()},
)
"""Three of eight steps record and nothing is guided: over-optimisation shows within minutes."""


def run(method: str, values: dict[str, Any], output: Path, seed: int, *, resume: bool) -> None:
    """Run `train METHOD` into `output` to its `max_steps`, from the newest checkpoint or from the start."""
    t2ialign.train(method, **values, output=output, seed=seed, resume="latest" if resume else None)


def fit(method: str, values: dict[str, Any], output: Path, seed: int) -> None:
    """`run`, from the newest checkpoint if there is one."""
    from t2ialign.training import checkpoint

    run(method, values, output, seed, resume=bool(checkpoint.whole(output / "checkpoints")))


def is_finished(output: Path) -> bool:
    """Whether a run came to its end: the card is written last of all."""
    return (output / "README.md").exists()


def finish(method: str, values: dict[str, Any], output: Path, seed: int) -> None:
    """`fit`, unless it is finished."""
    if not is_finished(output):
        fit(method, values, output, seed)


def finish_rewriter(method: str, values: dict[str, Any], output: Path, seed: int) -> None:
    """`finish` for a method of rewriters, which begins anew where a kill left no whole checkpoint."""
    from t2ialign.methods.rewriter.language import whole_checkpoint

    if is_finished(output):
        return
    resume = whole_checkpoint(output) is not None
    if not resume:
        shutil.rmtree(output, ignore_errors=True)
    run(method, values, output, seed, resume=resume)


def train_and_judge(
    folder: Path,
    seed: int,
    training: dict[str, Any],
    train_prompts: int,
    heldout_prompts: int,
    *,
    method: str = "backprop",
) -> None:
    """`train`, then the oracle on what its monitor drew, once."""
    if not (folder / ORACLE).exists():
        train(folder, seed, training, train_prompts, heldout_prompts, method=method)
        atomic.write_json(folder / ORACLE, _judged(folder / RUN))


def train(
    folder: Path,
    seed: int,
    training: dict[str, Any],
    train_prompts: int,
    heldout_prompts: int,
    *,
    method: str = "backprop",
) -> None:
    """A run by a method that climbs a reward, on toy captions, in `folder/run`, resumed if cut."""
    from t2ialign.toy.captions import draw_captions

    folder.mkdir(parents=True, exist_ok=True)
    if is_finished(folder / RUN):
        return
    files = {"train": folder / "train.txt", "heldout": folder / "heldout.txt"}
    for place, (name, count) in enumerate((("train", train_prompts), ("heldout", heldout_prompts))):
        drawn = draw_captions(count, 7000 + 10 * seed + place, held_out=name == "heldout")
        files[name].write_text("".join(f"{caption}\n" for caption in dict.fromkeys(drawn)))
    watched = {"monitor_prompts": str(files["heldout"])} if training.get("monitor_rewards") else {}
    values = {"model": "toy", **training, **watched, "prompts": str(files["train"])}
    fit(method, values, folder / RUN, seed)


class JudgedRun:
    """What `train_and_judge` left: the monitor's journal, and the oracle's verdicts on its images by step."""

    def __init__(self, folder: Path) -> None:
        self.journal = read(folder / RUN)
        verdicts = json.loads((folder / ORACLE).read_text())
        self.passed: dict[int, list[float]] = {int(step): passed for step, passed in verdicts.items()}
        self.prompts = [row["prompt"] for row in self.journal.at(0)]
        self.table = Table(self.prompts, verdicts)
        self.last = self.journal.steps[-1]


def _judged(run: Path) -> dict[str, list[float]]:
    """Step -> whether the oracle passes each image of the monitor, in the journal's order."""
    journal, passed = read(run), {}
    for step in Progress(journal.steps, desc="oracle", unit="step", delay=3):
        rows = journal.at(step)
        images = [inside(journal.folder, row["file"]) for row in rows]
        scores = t2ialign.score(images, "toy-oracle", [row["prompt"] for row in rows])
        passed[str(step)] = scores["toy-oracle"].tolist()
    return passed
