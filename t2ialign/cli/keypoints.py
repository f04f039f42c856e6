"""t2ialign keypoints: each key point of the user's prompt judged on the image, with intervals."""

from __future__ import annotations

import argparse
from pathlib import Path

from t2ialign.scoring.budget import add_max_batch_pixels

FLAGS = {"extract_options": "--extract-option", "options": "--option"}
"""Parameters of `t2ialign.judge_keypoints` whose flags have other names."""

EXPLAINED = """
This is the protocol of T2I-Keypoints-Eval (PromptEnhancer, arXiv 2509.04545): the judge sees the image and
the user's prompt, and answers one question per key point. The table of --points is that of the benchmark
(prompt, prompt_points, prompt_points_des), UniGenBench's CSV, GenEval's metadata, or rows of your own
(prompt, points). Without it the key points are extracted by the language model of --extract, or else by
rules; the oracle reads them from the captions. A question whose answer cannot be read is put a second time,
and then counted apart. The official script counts it as wrong, so both figures are reported."""

BACKENDS = ("oracle", "yes_no", "written", "head")
BROKEN = 3
"""Exit code when some key point has no verdict."""
SHOWN = 5
"""Errors that are quoted on the terminal; the rest are in the result."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.description = f"{parser.description}.{EXPLAINED}"
    parser.add_argument(
        "samples",
        help="The images to judge: a folder of t2ialign sample, or any source of t2ialign score that has "
        "prompts.",
    )
    parser.add_argument(
        "--points",
        type=Path,
        metavar="FILE",
        help="A table of key points, such as that of a benchmark; the formats are listed above.",
    )
    parser.add_argument(
        "--extract",
        metavar="MODEL",
        help="The language model that extracts the key points from the prompts. They are written to "
        "points.jsonl in --output.",
    )
    parser.add_argument(
        "--extract-url",
        metavar="URL",
        help="The address of an OpenAI-compatible server that serves the model of --extract, such as "
        "http://HOST:PORT/v1.",
    )
    parser.add_argument(
        "--extract-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="An option of the model of --extract, such as key_env=OPENAI_API_KEY. May be repeated.",
    )
    _add_judge(parser)
    parser.add_argument(
        "--batch-size",
        type=int,
        default=16,
        metavar="B",
        help="The number of images that are judged at a time (default: 16).",
    )
    add_max_batch_pixels(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/keypoints"),
        help="The folder for the results (default: runs/keypoints).",
    )
    parser.add_argument(
        "--resume",
        choices=("latest",),
        help="Continue an interrupted run and reuse the verdicts that are in --output.",
    )


def _add_judge(parser: argparse.ArgumentParser) -> None:
    """What judges the images."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="oracle",
        help="What judges the images. oracle: the exact judge of the toy model. yes_no: a vision-language "
        "model, by its probability of yes. written: a vision-language model that writes its answer, as in "
        "the protocol. head: the result of t2ialign train evaluator (default: oracle).",
    )
    parser.add_argument(
        "--weights",
        help="The vision-language model of yes_no and written, as a folder or Hub id, or the output folder "
        "of t2ialign train evaluator for head.",
    )
    parser.add_argument(
        "--url",
        help="The address of an OpenAI-compatible server that serves the vision-language model, such as "
        "http://HOST:PORT/v1.",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="An option of the vision-language model, such as key_env=OPENAI_API_KEY or tokens=1024. May be "
        "repeated.",
    )


def run(args: argparse.Namespace) -> int:
    """Judge what has no verdict yet, write the results, print the table -> 3 if a verdict is missing, else 0.

    Raises ValueError for bad arguments, an output in use, and images without a key point.
    """
    from rich.console import Console

    from t2ialign import api
    from t2ialign.io.messages import one_line
    from t2ialign.rewriting.arguments import parse_options
    from t2ialign.web import keypoint_report

    judged = api.judge_keypoints(
        args.samples,
        points=args.points,
        extract=args.extract,
        extract_url=args.extract_url,
        extract_options=parse_options(args.extract_option, "--extract-option"),
        backend=args.backend,
        weights=args.weights,
        url=args.url,
        options=parse_options(args.option, "--option"),
        batch_size=args.batch_size,
        max_batch_pixels=args.max_batch_pixels,
        output=args.output,
        resume=args.resume is not None,
    )
    Console(markup=False).print(judged.table)
    for error in judged.errors[:SHOWN]:
        print(one_line(f"not judged: {error}"))
    print(f"{keypoint_report.lead(judged.figures)}; results in {args.output}")
    return BROKEN if judged.errors or judged.figures["unreadable"] else 0
