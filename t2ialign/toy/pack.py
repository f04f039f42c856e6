"""Writes the finished models into assets: in half precision, measured, with a card."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers import CLIPModel, CLIPTokenizer

from rewards import tensor_files
from rewards.toy.clip import build as build_clip
from t2ialign.models.load import load_policy
from t2ialign.toy import mmdit, unet
from t2ialign.toy.card import FLOW, UNET, Kind, measure_reading, measure_repeats, measure_suite, write_card

CLIPS = ("clip", "clip-b")


@dataclass(frozen=True)
class Packed:
    """A model that is written, and the stages of its build that are measured."""

    name: str
    module: ModuleType
    """What assembles the networks of a stage to a pipeline."""
    suites: Mapping[str, str]
    """Key in facts.json -> stage; the first one is the model."""
    stages: str
    """How the names of its stages begin, where it has others' parts."""
    kind: Kind


MODELS = {
    "pack": Packed(
        "toy",
        unet,
        {"held_out_suite": "web", "clean_phase": "clean-2", "recovered": "recovered"},
        "",
        UNET,
    ),
    "flow-pack": Packed(
        "toy-flow",
        mmdit,
        {"held_out_suite": "flow-web", "clean_phase": "flow-clean-3", "recovered": "flow-recovered"},
        "flow-",
        FLOW,
    ),
}
"""The stages that write a model."""


def pack(work: Path, output: Path, stage: str, *, facts: dict[str, object]) -> None:
    """Write a model to `output` with a card of its stages; the two CLIPs beside the first model."""
    model, measured, scale = MODELS[stage], dict[str, Any](facts), 1.0
    target, sampler = output / model.name, model.kind.sampler
    if stage == "pack":
        _write_clips(work, output)
    for key, name in reversed(list(model.suites.items())):
        folder = target if key == "held_out_suite" else work / "pipelines" / name
        _write_pipeline(model.module.assemble(work, name), folder)
        measured[key], scale = measure_suite(load_policy(str(folder)), name, sampler)
    policy = load_policy(str(target))
    clips = {f"toy-{name}": build_clip(str(output / f"toy-{name}")) for name in CLIPS}
    repeats = measure_repeats(policy, scale, clips)
    measured |= {**measure_reading(policy), **repeats, **_training(work, model.stages)}
    write_card(target, measured, model.kind)


def _write_clips(work: Path, output: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    for name in CLIPS:
        folder = output / f"toy-{name}"
        tensor_files.save_pretrained(CLIPModel.from_pretrained(work / name).half(), folder)
        tensor_files.save_pretrained(tokenizer, folder)
        _load_as_float32(folder)


def _write_pipeline(pipe: Any, target: Path) -> None:
    tensor_files.save_pretrained(pipe.to(torch.float16), target)
    for part in sorted(target.iterdir()):
        if part.name.startswith("text_encoder"):
            _load_as_float32(part)
        elif part.name in ("unet", "transformer", "vae"):
            _forget_source(part)


def _load_as_float32(folder: Path) -> None:
    """transformers loads in the precision that the config names, diffusers in fp32: make both the same."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "dtype": "float32"}, indent=2) + "\n")


def _forget_source(folder: Path) -> None:
    """diffusers notes the folder on this machine that it read a network from."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config.pop("_name_or_path", None)
    file.write_text(json.dumps(config, indent=2) + "\n")


def _training(work: Path, stages: str) -> dict[str, object]:
    """Last logged loss and seconds of each stage whose name begins so."""
    losses, seconds = {}, {}
    for log in sorted(work.glob(f"train-{stages}*/loss.jsonl")):
        last = json.loads(log.read_text().splitlines()[-1])
        losses[log.parent.name.removeprefix("train-")] = {"steps": last["step"], "final_loss": last["loss"]}
    for file in sorted(work.glob(f"{stages}*.done.json")):
        if (name := file.name.split(".")[0]) not in MODELS:
            seconds[name] = json.loads(file.read_text())["seconds"]
    return {"training": losses, "seconds": seconds}
