"""t2ialign demo: the main job on the toy model, made of the other verbs.

Sample the base model on training prompts, let the oracle turn the samples into preference pairs, train
Diffusion-DPO with temporal discounting, and measure base and aligned on held-out prompts with new seeds.
Every step leaves its files, so a run that was cut off, or is repeated, goes on from there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign import api
from t2ialign.evaluation.provenance import source_hash
from t2ialign.io import atomic, jsonl, locks, manifest
from t2ialign.toy import default as toy

if TYPE_CHECKING:
    from t2ialign.evaluation.comparison import Summary
    from t2ialign.evaluation.statistics import Estimate

RESULT, REPORT, SECONDS, SETTINGS = "demo.json", "report.html", "seconds.jsonl", "settings.json"
SCORES = "scores.jsonl"
"""The file in the folders of base and aligned with the oracle's verdict on each image."""
TRAIN_PROMPTS, PER_PROMPT, HELD_OUT = 480, 4, 480
SAMPLER = {"num_inference_steps": 20, "guidance_scale": 2.0, "batch_size": 128}
"""The guidance is low, so that what the weights know of the prompt shows: at 4 it does much of DPO's work."""
EVAL_SEED = 1_000_000
"""Seeds of the held-out images start here, far from those of the training samples."""
TRAINING = {
    "gamma": 0.9,
    "discount": "sample",
    "num_inference_steps": 20,
    "beta": 500.0,
    "safeguard": 0.5,
    "lora_rank": 16,
    "lora_targets": ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"),
    "lr": 2e-3,
    "lr_schedule": "cosine",
    "lr_warmup": 20,
    "max_steps": 700,
    "batch_size": 32,
    "accumulate": 1,
    "evaluate_every": 50,
    "checkpoint_every": 100,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/demo"),
        help="The folder for all files of the demo (default: runs/demo). A demo that was interrupted "
        "continues in its folder.",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="The seed of prompts, samples and training (default: 0)."
    )


def run(args: argparse.Namespace) -> None:
    """Run the stages that are missing, then print the table and the path of the report."""
    with locks.hold_folder(args.output):
        make(args.output, args.seed)


def make(output: Path, seed: int) -> None:
    """Run the missing stages of the demo in `output`, and print its table.

    Raises ValueError for a folder that holds something else.
    """
    result = output / RESULT
    _claim(output, seed)
    if not result.exists():
        with _timed(output):
            pairs = make_pairs(output, seed)
        with _timed(output):
            train(output, seed)
        with _timed(output):
            columns = measure(output, seed)
        write_report(output, columns)
        seconds = sum(row["seconds"] for row in jsonl.read(output / SECONDS))
        atomic.write_json(result, summary(columns, pairs=pairs, seconds=seconds))
    show(output)


def make_pairs(output: Path, seed: int) -> int:
    """Sample the base model on training prompts and pair the samples -> the number of pairs."""
    from t2ialign.toy.captions import draw_captions
    from t2ialign.toy.preferences import write_pairs

    file = output / "pairs.jsonl"
    prompts = draw_captions(TRAIN_PROMPTS, 1000 + seed, held_out=False)
    _sample(output / "samples", prompts, first_seed=seed * 100_000, per_prompt=PER_PROMPT)
    return len(jsonl.read(file)) if file.exists() else write_pairs(output / "samples", file)


def train(output: Path, seed: int) -> None:
    """Diffusion-DPO on the pairs, from the newest checkpoint if there is one."""
    from t2ialign.training import checkpoint

    folder = output / "training"
    if (folder / "pytorch_lora_weights.safetensors").exists():
        return
    resume = "latest" if checkpoint.whole(folder / "checkpoints") else None
    values: dict[str, Any] = {"data": str(output / "pairs.jsonl"), "output": folder, "seed": seed, **TRAINING}
    api.train("dpo", model=toy.NAME, **values, resume=resume)


def measure(
    output: Path, seed: int, *, into: Path | None = None, guidance_scale: float = SAMPLER["guidance_scale"]
) -> dict[str, Summary]:
    """Sample base and aligned on the same held-out prompts and seeds, `into` a folder, and ask the oracle."""
    import rewards
    from t2ialign.evaluation.comparison import summarise
    from t2ialign.evaluation.manifest_scores import score_manifest
    from t2ialign.toy.captions import draw_captions

    prompts = draw_captions(HELD_OUT, 2000 + seed, held_out=True)
    first = EVAL_SEED + seed * 100_000
    oracle, scores = rewards.load("toy-oracle"), {}
    for name, lora in (("base", None), ("aligned", output / "training")):
        folder = (into or output) / name
        _sample(folder, prompts, first_seed=first, lora=lora, guidance_scale=guidance_scale)
        rows = manifest.read(folder)
        scores[name] = score_manifest(oracle, "toy-oracle", rows, folder / SCORES)
    columns = summarise(oracle, scores["aligned"], scores["base"])
    return {"base": columns["baseline"], "aligned": columns["scores"], "difference": columns["difference"]}


def summary(columns: dict[str, Summary], *, pairs: int, seconds: float) -> dict[str, Any]:
    """The content of demo.json."""
    return {
        **{name: _accuracy(columns[name]) for name in ("base", "aligned")},
        "difference": _accuracy(columns["difference"]),
        "pairs": pairs,
        "steps": TRAINING["max_steps"],
        "seconds": round(seconds),
    }


def _accuracy(column: dict[str, Estimate]) -> dict[str, Any]:
    overall = column["all"]
    categories = {name: value.mean for name, value in column.items() if name != "all"}
    return {"accuracy": overall.mean, "ci95": [overall.low, overall.high], "by_category": categories}


def show(output: Path) -> None:
    """Print the table of a finished demo and name its report."""
    from rich.console import Console
    from rich.table import Table

    result = atomic.read_json(output / RESULT)
    table = Table(title="oracle accuracy on held-out prompts, per cent", title_justify="left")
    for heading in ("", "base", "aligned"):
        table.add_column(heading, justify="right" if heading else "left")
    for category in result["base"]["by_category"]:
        table.add_row(
            category, *(f"{100 * result[m]['by_category'][category]:.1f}" for m in ("base", "aligned"))
        )
    table.add_section()
    table.add_row("all [95 % interval]", *(_interval(result[model]) for model in ("base", "aligned")))
    Console(markup=False).print(table)
    print(
        f"{result['pairs']} pairs, {result['steps']} steps, {result['seconds']} s; look at {output / REPORT}"
    )


def _interval(value: dict[str, Any]) -> str:
    low, high = value["ci95"]
    return f"{100 * value['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def write_report(output: Path, columns: dict[str, Summary]) -> None:
    """The page for people: images side by side, accuracies by category, training curves."""
    from t2ialign.web.charts import Bar, Chart, curves
    from t2ialign.web.report import Headline, Report, count_outcomes, write

    base, aligned, difference = (columns[name] for name in ("base", "aligned", "difference"))
    rows = jsonl.read(output / "training" / "metrics.jsonl")
    titles = {
        "Implicit accuracy": {"heldout/implicit_acc": "held-out pairs", "implicit_acc": "training pairs"},
        "Loss": {"loss": "loss"},
        "Squared error against the base model": {
            "err_win_minus_ref": "winners",
            "err_lose_minus_ref": "losers",
        },
    }
    report = Report(
        title="t2ialign demo: a tiny Stable Diffusion, aligned",
        summary=(
            "The toy model before and after Diffusion-DPO with temporal discounting, trained on pairs "
            "of its own samples that the oracle passed and failed. Both drew the same held-out prompts from "
            "the same seeds; the oracle reads the things in each image back and checks the caption."
        ),
        outcomes=count_outcomes(*(_verdicts(output / name) for name in ("base", "aligned"))),
        headlines=[Headline("Oracle accuracy", base["all"], aligned["all"], difference["all"])],
        comparisons=_comparisons(output),
        categories=[Bar(name, base[name], aligned[name]) for name in base if name != "all"],
        charts=[Chart(title, curves(rows, names)) for title, names in titles.items()],
        settings={**TRAINING, **SAMPLER, "pairs": len(jsonl.read(output / "pairs.jsonl"))},
    )
    write(report, output / REPORT)


def _verdicts(folder: Path) -> list[bool]:
    """Whether the oracle passed each held-out image of a model."""
    return [row["score"] == 1 for row in jsonl.read(folder / SCORES)]


def _comparisons(output: Path, count: int = 36) -> list[Any]:
    """The first held-out rows, balanced over the categories as the prompts are: nothing is picked by hand."""
    from t2ialign.data.images import open_rgb
    from t2ialign.io.inside import inside
    from t2ialign.web.report import Comparison

    sides = [
        list(zip(manifest.read(output / name), jsonl.read(output / name / SCORES), strict=True))
        for name in ("base", "aligned")
    ]
    return [
        Comparison(
            before.prompt,
            before.seed or 0,
            open_rgb(inside(output / "base", before.file)),
            open_rgb(inside(output / "aligned", after.file)),
            before_score["score"] == 1,
            after_score["score"] == 1,
        )
        for (before, before_score), (after, after_score) in list(zip(*sides, strict=True))[:count]
    ]


def _claim(output: Path, seed: int) -> None:
    """Take the folder, or go on in it. Raises ValueError if it holds something else or another seed's run."""
    settings = output / SETTINGS
    former = {
        "num_inference_steps": "num_steps"
    }  # the keys of the file stay, and training's are not the sampler's
    training = {former.get(key, key): value for key, value in TRAINING.items()}
    sampler = dict(zip(("steps", "guidance", "batch-size"), SAMPLER.values(), strict=True))
    wanted = json.loads(json.dumps({"seed": seed, **training, **sampler}))
    if settings.exists():
        earlier = atomic.read_json(settings)
        changed = ", ".join(key for key in wanted if earlier.get(key) != wanted[key])
        if changed:
            raise ValueError(
                f"got {output}, which holds a demo with another {changed}; expected the same; "
                "choose another --output"
            )
        return
    locks.check_free(output)
    atomic.write_json(settings, {**wanted, "tree": source_hash()})


@contextmanager
def _timed(output: Path) -> Iterator[None]:
    """Note how long a stage took, cut off or not, so that a demo done in several runs knows its time."""
    started = time.monotonic()
    try:
        yield
    finally:
        jsonl.append(output / SECONDS, [{"seconds": time.monotonic() - started}])


def _sample(
    folder: Path,
    prompts: list[str],
    *,
    first_seed: int,
    per_prompt: int = 1,
    lora: Path | None = None,
    guidance_scale: float = SAMPLER["guidance_scale"],
) -> None:
    """Render the prompts with the toy model, going on with what a killed run left."""
    api.sample(
        toy.NAME,
        prompts,
        num_images_per_prompt=per_prompt,
        seed=first_seed,
        num_inference_steps=int(SAMPLER["num_inference_steps"]),
        guidance_scale=guidance_scale,
        batch_size=int(SAMPLER["batch_size"]),
        loras=[] if lora is None else lora,
        output=folder,
        resume=folder.exists(),
    )
