"""A training run that claims share: captions of the embedded world, and the oracle on its pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

import rewards
from scripts.experiments.resumed import fit
from t2ialign.evaluation.manifest_scores import read_image
from t2ialign.evaluation.monitor_journal import Journal, read
from t2ialign.io import atomic
from t2ialign.io.inside import inside
from t2ialign.progress import Progress

ORACLE = "oracle.json"
RUN = "run"
TRAINING: dict[str, Any] = {
    "preset": "draft-k",
    "reward": "shapes-clip",
    "num_steps": 8,
    "guidance": 1.0,
    "k": 3,
    "lora_rank": 16,
    "lora_targets": ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"),
    "lr": 7e-4,
    "weight_decay": 0.01,
    "batch_size": 16,
    "max_steps": 400,
    "evaluate_every": 50,
    "checkpoint_every": 50,
    "monitor_rewards": ("shapes-clip-b",),
    "monitor_images": 4,
    "monitor_steps": 8,
    "monitor_guidance": 1.0,
    "trackers": (),
}


def train_and_judge(
    folder: Path, seed: int, training: dict[str, Any], train_prompts: int, heldout_prompts: int
) -> None:
    """`train`, then the oracle on what its monitor drew, once."""
    if (folder / ORACLE).exists():
        return
    train(folder, seed, training, train_prompts, heldout_prompts)
    atomic.write_json(folder / ORACLE, _judged(read(folder / RUN)))


def train(
    folder: Path, seed: int, training: dict[str, Any], train_prompts: int, heldout_prompts: int
) -> None:
    """A run of reward back-propagation on captions of the embedded world in `folder/run`, resumed if cut."""
    from t2ialign.toy.captions import draw_captions

    folder.mkdir(parents=True, exist_ok=True)
    run = folder / RUN
    if (run / "README.md").exists():  # written last of all
        return
    files = {}
    drawn = {"train": (train_prompts, False), "heldout": (heldout_prompts, True)}
    for place, (name, (count, held_out)) in enumerate(drawn.items()):
        files[name] = folder / f"{name}.txt"
        captions = dict.fromkeys(draw_captions(count, 7000 + 10 * seed + place, held_out=held_out))
        files[name].write_text("".join(f"{caption}\n" for caption in captions))
    watched = {"monitor_prompts": str(files["heldout"])} if training.get("monitor_rewards") else {}
    values = {**training, **watched, "prompts": str(files["train"])}
    fit("backprop", values, run, seed)


def accuracies(folder: Path) -> dict[int, list[float]]:
    """Step -> whether the oracle passed each picture of a judged run, in the journal's order."""
    return {int(step): passed for step, passed in json.loads((folder / ORACLE).read_text()).items()}


def _judged(journal: Journal) -> dict[str, list[float]]:
    """Step -> whether the oracle passes each picture of the monitor, in the journal's order."""
    oracle = rewards.load("shapes-oracle")
    found = {}
    for step in Progress(journal.steps, desc="oracle", unit="step", delay=3):
        rows = journal.at(step)
        images = torch.stack([read_image(inside(journal.folder, row["file"])) for row in rows])
        found[str(step)] = oracle(images, [row["prompt"] for row in rows]).tolist()
    return found
