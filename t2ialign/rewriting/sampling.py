"""Rewriting inside `t2ialign sample`: its flags, and the texts to render in place of the prompts."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.rewriting.arguments import add_rewriter, chosen, parse_options

if TYPE_CHECKING:
    from t2ialign.rewriting.job import Job

Row = dict[str, Any]

NEEDING = {
    "rewrite": ("preset", "url", "intensity", "rewriter_option", "best_of", "html"),
    "best_of": ("reward", "option"),
}
"""Flag -> flags that mean nothing without it."""
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
        help="Rewrite and render each prompt N times, and use the image that fits your own prompt best.",
    )
    group.add_argument(
        "--reward",
        help="The reward that judges the images of --best-of. The toy model needs none: its oracle judges "
        "captions such as 'a red circle left of a blue square', and shapes-clip judges other prompts.",
    )
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="An option of the reward of --best-of. May be repeated.",
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
    if args.html is not None:
        from t2ialign.rewriting.page import check_page

        check_page(args.html)


def job_of(args: argparse.Namespace) -> Job:
    """The rewriter that the flags name; what it writes must fit the model that is to render it.

    Raises ValueError where none is named for another model than the embedded one, and as `load.choose` does.
    """
    from t2ialign.rewriting.job import Job

    options = parse_options(args.rewriter_option, "--rewriter-option")
    name = _own(args.model) if args.rewrite == UNNAMED else args.rewrite
    return Job(chosen(name, args, options), fit=args.model)


def _own(model: str) -> str:
    """The rewriter of a model that has one. Raises ValueError, with three to begin with, for others."""
    from t2ialign.rewriting.fit import is_embedded
    from t2ialign.rewriting.load import SHAPES, SMALL

    if is_embedded(model):
        return SHAPES
    raise ValueError(
        f"got --rewrite without a rewriter for --model {model}; expected its name after --rewrite; try an "
        f"instruction model, such as {', '.join(SMALL[:-1])} or {SMALL[-1]}, or rules, which needs no model"
    )


def texts_of(job: Job, prompts: Sequence[str], folder: Path, draws: int = 1) -> list[dict[str, str]]:
    """{prompt: the text to render} for each draw; says how many prompts were kept as they are, and why.

    Draws are kept in `folder`, in rewrites.jsonl, rewrites-1.jsonl, ...; what is there is not asked again.
    """
    from t2ialign.rewriting.files import from_row

    found = job.rows(list(dict.fromkeys(prompts)), [folder / _journal(draw) for draw in range(draws)])
    results = [[from_row(row) for row in rows] for rows in found]
    kept = Counter(result.cause for some in results for result in some if result.used == "original")
    said = "".join(f"; {number} kept as they were: {reason}" for reason, number in kept.items())
    count = sum(map(len, results))
    print(f"{count - kept.total()} of {count} rewritten{said}")
    return [{result.prompt: result.text for result in some} for some in results]


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
    results = {(draw, row["prompt"]): from_row(row) for draw, found in drawn.items() for row in found}
    images: dict[tuple[int, str], list[Images]] = {}
    for row in rows:
        after = inside(folder, row["file"])
        same = row["rewritten"] == row["prompt"]
        before = after if same else inside(folder / ORIGINALS, row["file"])
        images.setdefault((_draw(row), row["prompt"]), []).append(Images(before, after, row["seed"]))
    write(page, [results[key] for key in images], rewriter=rewriter, images=list(images.values()))
    print(f"prompts, rewrites and images side by side: {page}")


def _draw(row: Row) -> int:
    """Which of the rewrites of its prompt a row shows."""
    return int(row.get("candidate", 0))


def _journal(draw: int) -> str:
    return f"rewrites-{draw}.jsonl" if draw else "rewrites.jsonl"
