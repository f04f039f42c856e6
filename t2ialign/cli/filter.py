"""t2ialign filter: the preference pairs whose label three rewards do not contradict, and what was dropped."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from t2ialign.scoring.budget import add_max_batch_pixels

FLAGS = {"floors": "--floor", "ties": "--tie"}
"""The parameters of `t2ialign.filter_pairs` whose flags have other names."""

EXPLAINED = """
This is Multi-Preference Consistent Filtering (Zhang et al., NeurIPS 2025). The gap of a pair is
score(winner) - score(loser). A pair with a winner stays if its gap reaches the floor of each of the three
rewards; a tie stays if the size of no gap is above the tie width of its reward. The published strategies are
in units of the rewards aesthetic, clipscore-h and vqascore, in this order: strategy 1 has the floors 0 0 0,
strategy 2 has -0.5 0 0, strategy 3 has -1 0 0, and all have the tie widths 0.2 0.03 0.07. For other rewards,
read the gaps in the report. Then set --floor and --tie with --resume latest, which scores nothing again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.description = f"{parser.description}.{EXPLAINED}"
    parser.add_argument(
        "pairs",
        metavar="PAIRS",
        help="The preference pairs to filter, in any form that the setting data of train lrm and train "
        "reward accepts.",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="KEPT",
        help="The file of pairs to write: .jsonl refers to the images by path, .parquet contains them. A "
        "report is written beside it as .json.",
    )
    parser.add_argument(
        "--rewards",
        nargs=3,
        required=True,
        metavar=("A", "B", "C"),
        help="The names of the three rewards that must not contradict a label.",
    )
    _add_limits(parser)
    parser.add_argument(
        "--split", default="train", help="The split to read of a dataset on the Hub (default: train)."
    )
    parser.add_argument(
        "--streaming",
        action="store_true",
        help="Read a dataset on the Hub as a stream, without storing it on disk.",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="The maximum number of pairs to read (default: all)."
    )
    parser.add_argument(
        "--unreadable",
        choices=("error", "skip"),
        default="error",
        help="What happens at a row without a prompt, a label or readable images: error stops the run, skip "
        "leaves the row out (default: error).",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=64,
        metavar="B",
        help="The number of images that are scored at a time (default: 64).",
    )
    add_max_batch_pixels(parser)
    parser.add_argument(
        "--resume",
        choices=("latest",),
        help="Continue an interrupted run and reuse the scores that are beside --output.",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """Which pairs stay."""
    parser.add_argument(
        "--strategy", type=int, choices=(1, 2, 3), help="The published set of limits to apply (default: 2)."
    )
    parser.add_argument(
        "--floor",
        nargs=3,
        type=float,
        metavar=("A", "B", "C"),
        help="The smallest allowed gap for each reward, in units of that reward, in place of those of a "
        "strategy.",
    )
    parser.add_argument(
        "--tie",
        nargs=3,
        type=float,
        metavar=("A", "B", "C"),
        help="The largest gap for each reward at which a tie is accepted, in units of that reward (default: "
        "0.2 0.03 0.07).",
    )


def run(args: argparse.Namespace) -> None:
    """Score, filter, write pairs and report, print a table. Raises ValueError for bad arguments or data."""
    from rich.console import Console

    from t2ialign import api
    from t2ialign.evaluation.filter_report import table

    filtered = api.filter_pairs(
        args.pairs,
        args.rewards,
        args.output,
        strategy=args.strategy,
        floors=args.floor,
        ties=args.tie,
        split=args.split,
        streaming=args.streaming,
        limit=args.limit,
        unreadable=args.unreadable,
        batch_size=args.batch_size,
        max_batch_pixels=args.max_batch_pixels,
        resume=args.resume is not None,
    )
    won, tied, left_out = filtered.preferences, filtered.ties, filtered.figures["unreadable"]["rows"]
    Console(markup=False).print(table(filtered.figures))
    print(
        f"kept {won['kept']} of {won['pairs']} preferences and {tied['kept']} of {tied['pairs']} ties"
        f"{f'; {left_out} rows left out, unreadable' if left_out else ''}; report in {filtered.report}"
    )
    print(f"examples of both: {filtered.page}")
    filtered.check()
    print(f"t2ialign train lrm {shlex.quote(f'data={args.output}')}")
