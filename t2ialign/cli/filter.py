"""t2ialign filter: the preference pairs whose label three rewards do not contradict, and what was dropped."""

from __future__ import annotations

import argparse
import logging
import math
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.io import locks
from t2ialign.scoring.budget import add_max_batch_pixels, check_max_batch_pixels

if TYPE_CHECKING:
    from t2ialign.data.consistent_filter import Limits

EXPLAINED = """
This is Multi-Preference Consistent Filtering (Zhang et al., NeurIPS 2025). The gap of a pair is
score(winner) - score(loser). A pair with a winner stays if its gap reaches the floor of each of the three
rewards; a tie stays if the size of no gap is above the tie width of its reward. The published strategies are
in units of the rewards aesthetic, clipscore-h and vqascore, in this order: strategy 1 has the floors 0 0 0,
strategy 2 has -0.5 0 0, strategy 3 has -1 0 0, and all have the tie widths 0.2 0.03 0.07. For other rewards,
read the gaps in the report. Then set --floor and --tie with --resume latest, which scores nothing again."""

REPORT, JOURNAL, PAGE = ".json", ".scores.jsonl", ".html"
"""Endings of the report and the page, in place of the output's, and of the journal of scores, behind it."""

log = logging.getLogger(__name__)


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
    limits = _limits(args)
    with locks.hold_file(args.output):
        _check(args)
        _filter(args, limits)


def _filter(args: argparse.Namespace, limits: Limits) -> None:
    import numpy as np

    import rewards
    from t2ialign.data.consistent_filter import consistent
    from t2ialign.data.pair_writer import check_record, write_pairs
    from t2ialign.data.pairs import read_pairs
    from t2ialign.data.skipped import skipping
    from t2ialign.evaluation import filter_report
    from t2ialign.io import atomic
    from t2ialign.scoring.pairs import score_pairs
    from t2ialign.web import filter_page

    options = {"split": args.split, "streaming": args.streaming, "limit": args.limit}
    read = partial(read_pairs, args.pairs, ties="soft", **options)
    skipped = skipping(args.unreadable, args.pairs)
    scored = score_pairs(
        (check_record(record, args.output) for record in read(skipped=skipped)),
        args.rewards,
        partial(rewards.load_all, args.rewards),
        _beside(args.output)[1],
        batch_size=args.batch_size,
        max_batch_pixels=args.max_batch_pixels,
        skipped=skipped,
    )
    if skipped is not None:
        skipped.tell()
    gaps, preferences = scored.gaps(3), scored.preferences
    whole = np.asarray(np.isfinite(gaps).all(1))
    kept = np.zeros(len(gaps), np.bool_)
    kept[whole] = consistent(gaps[whole], preferences[whole], limits)
    columns = [f"gap_{name}" for name in args.rewards]
    examples = filter_page.Examples(args.pairs, args.rewards, gaps, preferences, limits)
    again = scored.again(read(skipped=skipping(args.unreadable, args.pairs)))
    chosen = (
        (record, dict(zip(columns, gaps[number].tolist(), strict=True)))
        for number, record in examples.passing(again)
        if kept[number]
    )
    write_pairs(args.output, chosen, columns)
    parts = filter_report.summarise(args.rewards, gaps[whole], preferences[whole], limits)
    head = {
        **_head(args, limits),
        "pairs": len(gaps),
        "kept": int(kept.sum()),
        "unreadable": {
            "rows": skipped.count if skipped is not None else 0,
            "pairs": int((~whole).sum()),
            "pictures": scored.unreadable,
        },
    }
    report, _, page = _beside(args.output)
    atomic.write_json(report, {**head, **parts})
    filter_page.write(page, {**head, **parts}, examples)
    _show(args, parts, head)


def _limits(args: argparse.Namespace) -> Limits:
    """The strategy's, with floors and widths given in their place."""
    from t2ialign.data.consistent_filter import STRATEGIES, Limits

    if args.strategy and args.floor:
        raise ValueError("got both --strategy and --floor, which stands in its place; expected one; drop one")
    strategy = STRATEGIES[args.strategy or 2]
    limits = Limits(tuple(args.floor or strategy.floors), tuple(args.tie or strategy.ties))
    if not all(map(math.isfinite, (*limits.floors, *limits.ties))) or min(limits.ties) < 0:
        raise ValueError(
            f"got --floor {limits.floors} and --tie {limits.ties}; expected finite numbers, and widths of at "
            "least 0; change them"
        )
    return limits


def _check(args: argparse.Namespace) -> None:
    from t2ialign.data.pair_writer import check_output
    from t2ialign.tasks.scorers import check_all
    from t2ialign.training.inputs import check_data

    if len(set(args.rewards)) < 3:
        raise ValueError(f"got --rewards {' '.join(args.rewards)}; expected three different ones; change one")
    if args.batch_size < 1:
        raise ValueError(f"got --batch-size {args.batch_size}; expected at least 1; raise it")
    check_max_batch_pixels(args.max_batch_pixels)
    check_output(args.output)
    check_all(args.rewards, {})
    check_data(args.pairs)
    report, journal, page = _beside(args.output)
    files = (args.output, report, journal, page)
    source = Path(args.pairs).expanduser().resolve()
    for file in files:
        if file.resolve() == source or (source.is_dir() and file.resolve().is_relative_to(source)):
            raise ValueError(f"got --output {args.output} in the place of {args.pairs}; choose another")
    there = [file for file in files if file.exists()]
    if there and args.resume is None:
        raise ValueError(
            f"got {there[0]} from an earlier run; expected none; keep its scores with --resume latest, or "
            "choose another --output"
        )
    if there and not journal.exists():
        raise ValueError(
            f"got {there[0]} without {journal.name}; expected both, to go on; choose another --output"
        )


def _beside(output: Path) -> tuple[Path, Path, Path]:
    """The report, the journal and the page of an output."""
    return output.with_suffix(REPORT), output.with_name(output.name + JOURNAL), output.with_suffix(PAGE)


def _head(args: argparse.Namespace, limits: Limits) -> dict[str, Any]:
    return {
        "source": args.pairs,
        "rewards": args.rewards,
        "strategy": None if args.floor else args.strategy or 2,
        "floors": limits.floors,
        "tie_widths": limits.ties,
    }


def _show(args: argparse.Namespace, parts: dict[str, Any], head: dict[str, Any]) -> None:
    """Print the tables and what came of it. Raises ValueError if no pair is left."""
    from rich.console import Console

    from t2ialign.evaluation.filter_report import table

    won, tied = parts["preferences"], parts["ties"]
    report, _, page = _beside(args.output)
    Console(markup=False).print(table(parts))
    _warn_of_units(args, bool(tied["pairs"]), report)
    left_out = head["unreadable"]["rows"]
    print(
        f"kept {won['kept']} of {won['pairs']} preferences and {tied['kept']} of {tied['pairs']} ties"
        f"{f'; {left_out} rows left out, unreadable' if left_out else ''}; report in {report}"
    )
    print(f"examples of both: {page}")
    if not head["kept"]:
        raise ValueError(
            f"got no pair of {head['pairs']} that all three rewards allow; expected some; lower --floor, "
            f"raise --tie (the gaps are in {report}) and add --resume latest"
        )
    print(f"t2ialign train lrm {shlex.quote(f'data={args.output}')}")


def _warn_of_units(args: argparse.Namespace, tied: bool, report: Path) -> None:
    """Published numbers that are not 0 mean nothing in the units of other rewards."""
    from t2ialign.data.consistent_filter import PUBLISHED, STRATEGIES

    floors = STRATEGIES[args.strategy or 2].floors
    others = [
        name
        for name, own, floor in zip(args.rewards, PUBLISHED, floors, strict=True)
        if name != own and ((floor and not args.floor) or (tied and not args.tie))
    ]
    if others:
        log.warning(
            "the limits are in units of %s, and those of %s are others; the gaps in %s say what fits: "
            "give --floor and --tie, with --resume latest",
            ", ".join(PUBLISHED),
            ", ".join(others),
            report,
        )
