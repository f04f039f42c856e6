"""t2ialign mix: one LoRA that is alpha * A + (1 - alpha) * B of two, exactly, in weight space."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from t2ialign.io.messages import printable

EXPLAINED = """
The weight update of every layer is ALPHA times that of A plus (1 - ALPHA) times that of B. One LoRA then has
a share of what two runs with two rewards learned (the LoRA soup of AlignProp, Prabhudesai et al. 2023).
The ranks, alphas, seeds and target layers of the two may differ; their base model must be the same."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.description = f"{parser.description}.{EXPLAINED}"
    parser.add_argument(
        "a",
        type=Path,
        metavar="A",
        help="The first LoRA: the folder of a run, or a .safetensors file in any known format.",
    )
    parser.add_argument(
        "b", type=Path, metavar="B", help="The second LoRA, which must be for the same base model."
    )
    parser.add_argument(
        "--alpha",
        type=float,
        required=True,
        metavar="ALPHA",
        help="The share of A, from 0 to 1. The share of B is 1 - ALPHA.",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="The folder to write the mixed LoRA to. It must be new or empty.",
    )


def run(args: argparse.Namespace) -> None:
    """Write the mixture and its card. Raises ValueError for bad arguments, files or pairs of LoRAs."""
    from t2ialign import api

    mixed = api.mix(args.a, args.b, args.output, alpha=args.alpha)
    base = mixed.bases[0] if mixed.bases and mixed.bases[0] != "toy" else None
    use = shlex.join(["--lora", str(args.output), *(["--model", base] if base else [])])
    count = f"{mixed.layers} layers ({mixed.shared} in both)"
    line = f'{mixed.file}: {mixed.what}, rank {mixed.rank}, {count}; t2ialign sample "a prompt" {use}'
    print(printable(line))
