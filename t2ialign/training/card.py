"""The model card: model, data, course of the run, and how to load the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import rewards
from rewards.trained import is_trained
from t2ialign.io import atomic
from t2ialign.io.messages import marked
from t2ialign.training import usage
from t2ialign.training.result import kohya_file
from t2ialign.training.settings import LoopConfig, TrainConfig
from t2ialign.version import __version__


def write(
    cfg: TrainConfig,
    *,
    method: str,
    model: Mapping[str, Any],
    data: str,
    dataset: str | None = None,
    metrics: dict[str, float],
    more: Mapping[str, object] | None = None,
) -> Path:
    """Write README.md into the output folder, with the tags that model hubs read.

    model: how the base was read, its scheduler's config included; data: one line; dataset: its name on
    the Hub, if it is there; metrics: those of the last step; more: facts to add, or to put in place of the
    usual ones.
    """
    tags = ["text-to-image", "diffusers", "lora" if cfg.lora_rank else "full-weights", method, "t2ialign"]
    head: dict[str, object] = {
        **({"base_model": base} if (base := usage.hub_id(cfg.model)) else {}),
        "license": "other",
        "license_name": "as-base-model-and-data",
        **({"datasets": [dataset]} if dataset else {}),
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": tags,
    }
    load = (
        usage.lora(cfg.model, cfg.output, kohya=kohya_file(cfg.output, cfg.output), settings=model)
        if cfg.lora_rank
        else usage.all_weights(cfg.model, cfg.output, settings=model)
    )
    shown = sorted((cfg.output / "validation").glob("step-*.png"))
    facts: dict[str, object] = {
        "Data": data,
        "Steps": cfg.max_steps,
        "Trained": f"LoRA of rank {cfg.lora_rank}" if cfg.lora_rank else "all weights",
        **(more or {}),
    }
    lead = f"`{usage.shown(cfg.model)}` aligned with `{method}` by t2ialign {__version__}."
    tail = ["", f"![validation images](validation/{shown[-1].name})"] if shown else []
    return write_text(cfg.output, head, lead, facts, [load, *tail], metrics)


def write_scorer(
    cfg: LoopConfig,
    *,
    reward: str,
    data: str,
    dataset: str | None,
    trained: str,
    metrics: dict[str, float],
    load: str = usage.SCORER,
) -> Path:
    """The same for a trained scorer: reward is the name of its base, trained says what of it was trained, and
    load how it is loaded.
    """
    head: dict[str, object] = {
        "license": "other",
        "license_name": "as-base-model-and-data",
        **({"datasets": [dataset]} if dataset else {}),
        "tags": ["text-to-image", "reward-model", "preferences", "t2ialign"],
    }
    facts: dict[str, object] = {"Data": data, "Steps": cfg.max_steps, "Trained": trained}
    lead = f"`{reward}` trained on preferences by t2ialign {__version__}."
    shipped = reward in rewards.names() or is_trained(reward)
    name = "trained" if shipped else reward  # code is loaded only where the user names it
    usage_text = load.format(folder=cfg.output.resolve().name, name=name)
    return write_text(cfg.output, head, lead, facts, [usage_text], metrics)


def write_text(
    output: Path,
    head: dict[str, object],
    lead: str,
    facts: dict[str, object],
    load: list[str],
    metrics: dict[str, float],
) -> Path:
    """Write a card of this head, lead, facts, ways to load the result, and metrics of the last step."""
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).strip(),
        "---",
        "",
        f"# {output.name}",
        "",
        lead,
        "",
        *(f"- {name}: {marked(value)}" for name, value in facts.items()),
        "- Every setting: `config.yaml`; every step's numbers: `metrics.jsonl`",
        "- Licence: that of the base model and of the data",
        "",
        "## Use it",
        "",
        load[0],
        "",
        "## Last step",
        "",
        "| metric | value |",
        "|---|---|",
        *(f"| {name} | {value:.5g} |" for name, value in sorted(metrics.items())),
        *load[1:],
    ]
    file = output / "README.md"
    atomic.write_text(file, "\n".join(lines) + "\n")
    return file
