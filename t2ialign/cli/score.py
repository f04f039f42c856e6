"""t2ialign score: any number of rewards over any number of images, into one table; a killed run goes on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from t2ialign.cli.options import add_columns, add_pace, reward_options

if TYPE_CHECKING:
    import pyarrow as pa

BROKEN = 3
"""Exit code when some image could not be scored."""
SHOWN = 5
"""Errors that are quoted on the terminal; the rest are in the table."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "source",
        nargs="?",
        help="The images: a folder, manifest, .jsonl, .csv or .parquet table, .tar shards or Hub dataset.",
    )
    parser.add_argument(
        "--rewards",
        metavar="A,B,...",
        help="The rewards, separated by commas: names (docs/rewards.md), or modules as package.module.",
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE|TEXT",
        help="A table of file names and prompts, or one prompt for all images (default: the text in NAME.txt "
        "beside each image).",
    )
    parser.add_argument(
        "--prompts-from-names",
        action="store_true",
        help='Take each prompt from the name of the file, such as "a red cat" from a_red_cat_01.png.',
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="The table to write: .parquet, .csv or .jsonl."
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="Also write a page that shows the best and the worst images.",
    )
    parser.add_argument(
        "--top",
        type=int,
        default=24,
        metavar="N",
        help="The number of images per reward on the page of --html (default: 24).",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="REWARD:KEY=VALUE",
        help="An option of a reward, such as pickscore:weights=model.safetensors. May be repeated.",
    )
    add_columns(parser)
    add_pace(parser)
    parser.add_argument(
        "--resume", choices=("latest",), help="Continue an interrupted run that wrote to --output."
    )
    parser.add_argument(
        "--merge",
        nargs="+",
        metavar="FILE",
        help="Join the tables that several processes have written into the one of --output.",
    )
    parser.add_argument(
        "--ray", type=int, metavar="N", help="Run on a Ray cluster with N workers that score images."
    )


def run(args: argparse.Namespace) -> int:
    """Score or merge, print a summary; the exit code is 3 if an image could not be scored.

    Of several processes (`accelerate launch`) each writes its part and leaves with 0, since another code
    would make the launcher stop the others. Raises ValueError for bad arguments.
    """
    from t2ialign import api
    from t2ialign.tasks import scoring

    _check(args)
    where = {
        "prompts": args.prompts,
        "prompts_from_names": args.prompts_from_names,
        "image_column": args.image_column,
        "prompt_column": args.prompt_column,
        "split": args.split,
    }
    if args.merge:
        merged = scoring.merge(args.merge, args.output, args.source, where, html=args.html, top=args.top)
        return _finish(args, merged, args.output)
    scores = api.score(
        args.source,
        _names(args.rewards),
        output=args.output,
        html=args.html,
        top=args.top,
        options=reward_options(args.option),
        batch_size=args.batch_size,
        max_batch_pixels=args.max_batch_pixels,
        workers=args.workers,
        device=args.device,
        precision=args.precision,
        ray=args.ray,
        resume=args.resume is not None,
        **where,
    )
    rank, world = scoring.process()
    if world == 1:
        return _finish(args, scores.table, args.output)
    _show_part(args, scores.table, rank, world)
    return 0


def _show_part(args: argparse.Namespace, scores: pa.Table, rank: int, world: int) -> None:
    """Print the path of this process's part and, in the first process, how to join all parts."""
    from t2ialign.scoring import output

    path = output.rank_path(args.output, rank, world)
    print(f"{len(scores)} rows, {output.broken(scores)} with an error, in {path}")
    if rank == 0:
        pattern = output.rank_path(args.output, 0, world).name.replace(".rank0-", ".rank*-")
        merge = f"--merge {path.parent / pattern} -o {args.output}"
        page = f" --html {args.html}" if args.html else ""
        print(f"join all parts with: t2ialign score {args.source if page else ''} {merge}{page}")


def _finish(args: argparse.Namespace, scores: pa.Table, path: Path) -> int:
    import pyarrow.compute as pc

    from t2ialign.io.messages import one_line
    from t2ialign.scoring import output

    output.show(output.summarise(scores), f"{len(scores)} rows in {path}")
    if args.html is not None and args.source is not None:
        print(f"best and worst in {args.html}")
    if not (errors := output.broken(scores)):
        return 0
    for text in scores.filter(pc.is_valid(scores["error"])).slice(0, SHOWN)["error"].to_pylist():
        print(one_line(f"not scored: {text}"))
    print(f"{errors} of {len(scores)} rows could not be scored in full; their column error says why")
    return BROKEN


def _check(args: argparse.Namespace) -> None:
    for given, name, what in (
        (args.output, "--output", "the table to write; add -o scores.csv"),
        (args.merge or args.source, "source", "a folder or table of images; name it after score"),
        (args.merge or args.rewards, "--rewards", "names of rewards; add --rewards aesthetic,saturation"),
    ):
        if not given:
            raise ValueError(f"got no {name}; expected {what}")
    if args.html is not None and args.source is None:
        raise ValueError("got --html without a source; expected one, for the images; name it before --merge")


def _names(text: str) -> list[str]:
    """The names in "a, b,c", each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
