"""Rewriting inside `t2ialign sample`: its flags, and the texts to render in place of the prompts."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from t2ialign.rewriting.arguments import add_rewriter, chosen, parse_options

if TYPE_CHECKING:
    from t2ialign.rewriting.job import Job

NEEDING = {
    "rewrite": ("preset", "url", "intensity", "rewriter_option", "best_of"),
    "best_of": ("reward", "option"),
}
"""Flag -> flags that mean nothing without it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of rewriting, and of choosing among rewrites."""
    group = parser.add_argument_group("rewriting", "render rewritten prompts; see t2ialign rewrite --help")
    group.add_argument(
        "--rewrite",
        nargs="?",
        const="shapes",
        metavar="NAME",
        help="by a rewriter (shapes); after the prompts",
    )
    add_rewriter(group)
    group.add_argument(
        "--rewriter-option", action="append", default=[], metavar="KEY=VALUE", help="may be repeated"
    )
    group.add_argument(
        "--best-of", type=int, metavar="N", help="rewrite N times, keep what fits your own prompt best"
    )
    group.add_argument(
        "--reward",
        help="what judges that (evaluator; on the embedded model with the exact oracle, which reads captions "
        "such as 'a red circle left of a blue square', and others by --option points=FILE)",
    )
    group.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the reward; may be repeated"
    )


def check(args: argparse.Namespace) -> None:
    """Raises ValueError for a flag without the one it belongs to, and for a best of fewer than 2."""
    if args.best_of is not None and args.best_of < 2:
        raise ValueError(f"got --best-of {args.best_of}; expected at least 2; raise it, or leave it out")
    for flag, names in NEEDING.items():
        given = [name for name in names if getattr(args, name)]
        if given and not getattr(args, flag):
            flag, stray = (f"--{name.replace('_', '-')}" for name in (flag, given[0]))
            raise ValueError(f"got {stray} without {flag}; expected both; add {flag}, or drop {stray}")
    if args.rewrite and " " in args.rewrite and not (args.prompt or args.prompts):
        raise ValueError(
            f"got no prompt, and {args.rewrite!r} for the name of a rewriter; expected prompts before "
            "--rewrite; put it last"
        )


def job_of(args: argparse.Namespace) -> Job:
    """The rewriter that the flags name; what it writes must fit the model that is to render it.

    Raises ValueError as `load.choose` does.
    """
    from t2ialign.rewriting.job import Job

    options = parse_options(args.rewriter_option, "--rewriter-option")
    return Job(chosen(args.rewrite, args, options), fit=args.model)


def texts_of(job: Job, prompts: Sequence[str], folder: Path, draws: int = 1) -> list[dict[str, str]]:
    """{prompt: the text to render} for each draw; says how many prompts were kept as they are, and why.

    Draws are kept in `folder`, in rewrites.jsonl, rewrites-1.jsonl, ...; what is there is not asked again.
    """
    from t2ialign.rewriting.files import from_row

    names = ["rewrites.jsonl", *(f"rewrites-{draw}.jsonl" for draw in range(1, draws))]
    found = job.rows(list(dict.fromkeys(prompts)), [folder / name for name in names])
    results = [[from_row(row) for row in rows] for rows in found]
    kept = Counter(result.cause for some in results for result in some if result.used == "original")
    said = "".join(f"; {number} kept as they were: {reason}" for reason, number in kept.items())
    count = sum(map(len, results))
    print(f"{count - kept.total()} of {count} rewritten{said}")
    return [{result.prompt: result.text for result in some} for some in results]
