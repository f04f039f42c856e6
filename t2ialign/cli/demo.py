"""t2ialign demo: the main job on the toy model, in rounds, with a page that shows what came of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rewards.assets import TOYS
from t2ialign.io import locks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "--model",
        choices=TOYS,
        default=TOYS[0],
        help="The model that is aligned: a small Stable Diffusion (toy, the default), or a small Stable "
        "Diffusion 3 that draws the same world (toy-flow).",
    )
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
    from t2ialign.tasks.demo.settings import BY_MODEL
    from t2ialign.tasks.demo.workflow import make

    with locks.hold_folder(args.output):
        show(args.output, make(args.output, args.seed, settings=BY_MODEL[args.model]))


def show(output: Path, result: dict[str, Any]) -> None:
    """Print the table of a finished demo and name its report."""
    from rich.console import Console
    from rich.table import Table

    from t2ialign.tasks.demo.measuring import MODELS
    from t2ialign.tasks.demo.page import REPORT

    table = Table(title="oracle accuracy on held-out prompts, per cent", title_justify="left")
    table.add_column("")
    for model in MODELS:
        table.add_column(f"{model}, guidance {result['guidance_scale'][model]:g}", justify="right")
    for category in result["base"]["by_category"]:
        accuracies = (result[model]["by_category"][category] for model in MODELS)
        table.add_row(category, *(f"{100 * accuracy:.1f}" for accuracy in accuracies))
    table.add_section()
    table.add_row("all [95 % interval]", *(_interval(result[model]) for model in MODELS))
    Console(markup=False).print(table)
    counts = ", ".join(f"{count} {name}" for name, count in result["outcomes"].items())
    print(f"each model at its own best guidance scale; of the images {counts}")
    made = f"{result['pairs']} pairs, {result['steps']} steps, {result['seconds']} s"
    print(f"{made}; look at {output / REPORT}")


def _interval(value: dict[str, Any]) -> str:
    low, high = value["ci95"]
    return f"{100 * value['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
