"""Training within a claim: a run that was cut off goes on, and one that is finished is left alone.

A judged run is one of reward back-propagation on captions of the toy world, with the oracle's verdicts
on the images that its monitor drew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

import rewards
import t2ialign
from t2ialign.evaluation.manifest_scores import read_image
from t2ialign.evaluation.monitor_journal import Journal, read
from t2ialign.io import atomic
from t2ialign.io.inside import inside
from t2ialign.progress import Progress

LORA: dict[str, Any] = {
    "lora_rank": 16,
    "lora_targets": ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"),
    "trackers": (),
}
"""Of the toy model, whatever the method."""
ORACLE, RUN = "oracle.json", "run"
TRAINING: dict[str, Any] = {
    **LORA,
    **{"preset": "draft-k", "reward": "toy-clip", "num_inference_steps": 8, "guidance_scale": 1.0, "k": 3},
    **{"lr": 7e-4, "weight_decay": 0.01, "batch_size": 16, "max_steps": 400},
    **{"evaluate_every": 50, "checkpoint_every": 50},
    **{
        "monitor_rewards": ("toy-clip-b",),
        "monitor_images": 4,
        "monitor_steps": 8,
        "monitor_guidance_scale": 1.0,
    },
}


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
    folder: Path, seed: int, training: dict[str, Any], train_prompts: int, heldout_prompts: int
) -> None:
    """`train`, then the oracle on what its monitor drew, once."""
    if not (folder / ORACLE).exists():
        train(folder, seed, training, train_prompts, heldout_prompts)
        atomic.write_json(folder / ORACLE, _judged(read(folder / RUN)))


def train(
    folder: Path, seed: int, training: dict[str, Any], train_prompts: int, heldout_prompts: int
) -> None:
    """A run of reward back-propagation on captions of the toy world in `folder/run`, resumed if cut."""
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
    fit("backprop", values, folder / RUN, seed)


def accuracies(folder: Path) -> dict[int, list[float]]:
    """Step -> whether the oracle passed each image of a judged run, in the journal's order."""
    return {int(step): passed for step, passed in json.loads((folder / ORACLE).read_text()).items()}


def _judged(journal: Journal) -> dict[str, list[float]]:
    """Step -> whether the oracle passes each image of the monitor, in the journal's order."""
    oracle, passed = rewards.load("toy-oracle"), {}
    for step in Progress(journal.steps, desc="oracle", unit="step", delay=3):
        rows = journal.at(step)
        images = torch.stack([read_image(inside(journal.folder, row["file"])) for row in rows])
        passed[str(step)] = oracle(images, [row["prompt"] for row in rows]).tolist()
    return passed
