"""Rewriting before rendering: the flags of `t2ialign sample`, and the texts in place of the prompts."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.rewriting.arguments import add_rewriter

if TYPE_CHECKING:
    from t2ialign.rewriting.job import Job
    from t2ialign.rewriting.rewriter import Rewritten

Row = dict[str, Any]

UNNAMED = "?"
"""What --rewrite is without a name."""
OF_REWRITES = ("rewritten", "rewriter", "best_of", "candidate", "score", "reward")
"""Keys of a row that the image of a prompt itself does not have."""
ORIGINALS = "originals"
"""In the run's folder: the images of the prompts that were rewritten, for the page of --html."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of rewriting, and of choosing among rewrites."""
    group = parser.add_argument_group(
        "rewriting", "Prompts can be rewritten before they are rendered; see t2ialign rewrite --help."
    )
    group.add_argument(
        "--rewrite",
        nargs="?",
        const=UNNAMED,
        metavar="NAME",
        help="Render rewritten prompts. NAME is the rewriter: rules, a folder or a Hub id; the toy model has "
        "a rewriter of its own, which needs no name. Write this option after the prompts.",
    )
    add_rewriter(group)
    group.add_argument(
        "--rewriter-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="A setting of the rewriter, as --option of t2ialign rewrite. May be repeated.",
    )
    group.add_argument(
        "--html",
        type=Path,
        metavar="PAGE",
        help="Also write a page that shows prompts, rewrites and their images side by side. Each prompt as "
        "you wrote it is rendered too, with the seed of its rewrite.",
    )
    group.add_argument(
        "--best-of",
        type=int,
        metavar="N",
        help="Render N candidates of each image, from seeds of their own, and use the one that scores best "
        "for your own prompt. With --rewrite each of them is of another rewrite.",
    )
    group.add_argument(
        "--reward",
        help="The reward that judges the images of --best-of. The toy model needs none: its oracle judges "
        "captions such as 'a red circle left of a blue square', and toy-clip judges other prompts.",
    )
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="An option of the reward of --best-of. May be repeated.",
    )


def rewritten(job: Job, prompts: Sequence[str], folder: Path, draws: int = 1) -> list[list[Rewritten]]:
    """What became of each different prompt, in each draw.

    Draws are kept in `folder`, in rewrites.jsonl, rewrites-1.jsonl, ...; what is there is not asked again.
    """
    from t2ialign.rewriting.files import from_row

    rows = job.rows(list(dict.fromkeys(prompts)), [folder / _journal(draw) for draw in range(draws)])
    return [[from_row(row) for row in some] for some in rows]


def texts(results: Sequence[Rewritten]) -> dict[str, str]:
    """{prompt: the text to render} of one draw."""
    return {result.prompt: result.text for result in results}


def summary(results: Sequence[Sequence[Rewritten]]) -> str:
    """One line: how many prompts of all draws were rewritten, and why the others stay as they are."""
    unchanged = Counter(result.cause for some in results for result in some if result.used == "original")
    why = "".join(f"; {number} kept as they were: {reason}" for reason, number in unchanged.items())
    count = sum(map(len, results))
    return f"{count - unchanged.total()} of {count} rewritten{why}"


def originals(rows: Sequence[Row]) -> list[Row]:
    """The rows that render the prompts of rows whose text is another, with the same seeds and settings."""
    return [
        {key: value for key, value in row.items() if key not in OF_REWRITES}
        for row in rows
        if row["rewritten"] != row["prompt"]
    ]


def write_page(page: Path, folder: Path, rows: Sequence[Row], rewriter: str) -> None:
    """The page of a run in `folder`: each rewrite with its images, beside those in `ORIGINALS`."""
    from t2ialign.io import jsonl
    from t2ialign.io.inside import inside
    from t2ialign.rewriting.files import from_row
    from t2ialign.rewriting.page import Images, write

    drawn = {draw: jsonl.read(folder / _journal(draw)) for draw in {_draw(row) for row in rows}}
    results = {(draw, row["prompt"]): from_row(row) for draw, rewrites in drawn.items() for row in rewrites}
    images: dict[tuple[int, str], list[Images]] = {}
    for row in rows:
        after = inside(folder, row["file"])
        same = row["rewritten"] == row["prompt"]
        before = after if same else inside(folder / ORIGINALS, row["file"])
        images.setdefault((_draw(row), row["prompt"]), []).append(Images(before, after, row["seed"]))
    write(page, [results[key] for key in images], rewriter=rewriter, images=list(images.values()))


def _draw(row: Row) -> int:
    """Which of the rewrites of its prompt a row shows."""
    return int(row.get("candidate", 0))


def _journal(draw: int) -> str:
    return f"rewrites-{draw}.jsonl" if draw else "rewrites.jsonl"
