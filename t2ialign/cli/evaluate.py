"""t2ialign evaluate: score a manifest's images with a reward, alone or against a baseline."""

from __future__ import annotations

import argparse
from pathlib import Path

from t2ialign.io.messages import one_line

FLAGS = {"num_images_per_prompt": "-n"}
"""Flags of `t2ialign sample` by its parameters, for errors that name them."""
BROKEN = 3
"""Exit code when some image could not be scored."""
SHOWN = 5
"""Broken images that are named on the terminal; the rest are in the journal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "source", type=Path, help="A manifest.jsonl of t2ialign sample, or the folder that holds one."
    )
    parser.add_argument(
        "--reward",
        required=True,
        help="The reward that scores the images: a name of docs/rewards.md, or a module of yours as "
        "package.module.",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        help="A second manifest, or its folder, with the same prompts and seeds. The difference to it is "
        "reported with a confidence interval.",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=64,
        metavar="B",
        help="The number of images that are scored at a time (default: 64).",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="The seed of the bootstrap that gives the confidence intervals (default: 0).",
    )
    parser.add_argument(
        "--output", type=Path, help="The folder for the results (default: the folder of the manifest)."
    )
    parser.add_argument(
        "--resume",
        choices=("latest",),
        help="Continue an interrupted evaluation and reuse the scores that are in --output.",
    )


def run(args: argparse.Namespace) -> int:
    """Score, print a table and write the results; the exit code is 3 if an image could not be scored."""
    from t2ialign import api

    evaluation = api.evaluate(
        args.source,
        args.reward,
        baseline=args.baseline,
        batch_size=args.batch_size,
        seed=args.seed,
        output=args.output or (args.source if args.source.is_dir() else args.source.parent),
        resume=args.resume is not None,
    )
    print(evaluation)
    for error in evaluation.errors[:SHOWN]:
        print(one_line(f"not scored: {error}"))
    if broken := len(evaluation.errors):
        print(f"{broken} images could not be scored; the means leave them out, the journal has their errors")
    if evaluation.page is not None:
        print(f"images, prompts and distribution: {evaluation.page}")
    return BROKEN if evaluation.errors else 0
