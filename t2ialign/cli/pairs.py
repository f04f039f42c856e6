"""t2ialign pairs: preference pairs or likes from a model and rewards, a folder, rankings or scores."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from t2ialign.cli.options import add_rendering, reward_options
from t2ialign.models import options

FLAGS = {"num_images_per_prompt": "-n", "loras": "--lora", "options": "--option"}
"""Parameters of `t2ialign.make_pairs` whose flags have other names."""

EXPLAINED = """
Several images of each prompt are compared: those of a folder or table, those that a model draws, or those of
a published ranking. Rewards score them; of several rewards each votes in units of its spread, or --judge
orders the images and the others vouch for it. The best and the worst of a prompt become a pair, whose
margin, agreement and gaps are written beside it. The report says how far the rewards agree, and what share of
the labels is wrong by that. With --likes single images are written, liked or not, for t2ialign train kto."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.description = f"{parser.description}.{EXPLAINED}"
    parser.add_argument(
        "images",
        nargs="?",
        metavar="IMAGES",
        help="The images with their prompts: a folder, such as one of t2ialign sample, a table, or a ranking "
        "in the format of ImageReward or HPDv2. Leave it out to draw images with --model.",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="PAIRS",
        help="The file to write: .jsonl refers to the images by path, .parquet contains them. A report and a "
        "page of examples are written beside it as .json and .html.",
    )
    _add_scores(parser)
    _add_rule(parser)
    drawn = parser.add_argument_group(
        "images that a model draws", "Without IMAGES these say who draws them, of what, and how many."
    )
    drawn.add_argument(
        "--model",
        help="The model that draws: a diffusers folder, a .safetensors or .ckpt file, a Hub id, or toy (the "
        "toy model).",
    )
    options.add_arguments(parser)
    drawn.add_argument(
        "--prompts", type=Path, metavar="FILE", help="The file of prompts that are drawn, one per line."
    )
    drawn.add_argument(
        "-n", type=int, default=8, metavar="N", help="The number of images per prompt (default: 8)."
    )
    drawn.add_argument("--seed", type=int, default=0, help="The seed of the first image (default: 0).")
    drawn.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="PATH[:SCALE]",
        help="A LoRA to apply: the folder of a run or a .safetensors file. May be repeated.",
    )
    add_rendering(parser)
    parser.add_argument(
        "--resume",
        choices=("latest",),
        help="Continue an interrupted run and reuse the images and scores that are beside --output.",
    )


def _add_scores(parser: argparse.ArgumentParser) -> None:
    """Who says what of an image."""
    parser.add_argument(
        "--rewards",
        nargs="+",
        default=[],
        metavar="NAME",
        help="The names of the rewards that score the images.",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="REWARD:KEY=VALUE",
        help="An option of a reward, such as pickscore:weights=model.safetensors. May be repeated.",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="NAME",
        help="The columns of a table that hold scores already, in place of --rewards.",
    )
    parser.add_argument(
        "--judge",
        metavar="NAME",
        help="The reward or column that orders the images, while the others only vouch for its order "
        "(default: all of them vote).",
    )


def _add_rule(parser: argparse.ArgumentParser) -> None:
    """Which pairs or likes are written."""
    parser.add_argument(
        "--every",
        action="store_true",
        help="Take every two images of a prompt, and not the best and the worst alone.",
    )
    parser.add_argument(
        "--min-margin",
        type=float,
        default=0.0,
        metavar="M",
        help="Leave out pairs whose margin is not larger than this (default: 0).",
    )
    parser.add_argument(
        "--min-agreement",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="Leave out pairs on which a smaller share of the rewards agrees (default: 0).",
    )
    parser.add_argument(
        "--ties",
        type=float,
        metavar="M",
        help="Write pairs whose margin is at most this as ties, for train dpo loss=ternary (default: leave "
        "ties out).",
    )
    parser.add_argument(
        "--likes",
        action="store_true",
        help="Write single images, liked or not, in place of pairs.",
    )
    parser.add_argument(
        "--quantiles",
        nargs=2,
        type=float,
        default=[0.85, 0.5],
        metavar=("LIKED", "DISLIKED"),
        help="With --likes: an image is liked from the first quantile of its prompt's scores on, and "
        "disliked up to the second (default: 0.85 0.5).",
    )


def run(args: argparse.Namespace) -> None:
    """Score, choose, write pairs and report, print a table. Raises ValueError for bad arguments or data."""
    from rich.console import Console

    from t2ialign import api
    from t2ialign.evaluation.pair_report import table

    paired = api.make_pairs(
        args.images,
        args.output,
        rewards=args.rewards,
        options=reward_options(args.option),
        columns=args.columns,
        judge=args.judge,
        every=args.every,
        min_margin=args.min_margin,
        min_agreement=args.min_agreement,
        ties=args.ties,
        likes=args.likes,
        quantiles=(args.quantiles[0], args.quantiles[1]),
        model=args.model,
        prompts=args.prompts,
        num_images_per_prompt=args.n,
        seed=args.seed,
        num_inference_steps=args.num_inference_steps,
        guidance_scale=args.guidance_scale,
        eta=args.eta,
        height=args.height,
        width=args.width,
        loras=args.lora,
        precision=args.precision,
        attention=args.attention,
        model_options=options.options_of(args).given(),
        batch_size=args.batch_size,
        resume=args.resume is not None,
    )
    figures = paired.figures
    Console(markup=False).print(table(figures))
    dropped = "".join(f", {count} left out by {why}" for why, count in figures["dropped"].items())
    what = f"{paired.count} pairs"
    if args.likes:
        what, dropped = f"{figures['liked']} liked and {figures['disliked']} disliked images", ""
    print(f"{what} in {paired.output}{dropped}; report in {paired.report}")
    if (noise := figures["label_noise"]) is not None:
        print(f"estimated by the agreement of the rewards, {100 * noise:.1f} % of the labels are wrong")
    print(f"examples: {paired.page}")
    method = "kto" if args.likes else "dpo"
    print(f"t2ialign train {method} {shlex.quote(f'data={args.output}')}")
