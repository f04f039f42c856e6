"""t2ialign keypoints: each key point of the user's prompt judged on the picture, with intervals."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.io import locks
from t2ialign.io.paths import check_place
from t2ialign.scoring.budget import add_max_batch_pixels, check_max_batch_pixels

if TYPE_CHECKING:
    from rewards.keypoints.evaluator import AlignEvaluator
    from rewards.keypoints.taxonomy import KeyPoint
    from t2ialign.scoring.items import Item, Source
    from t2ialign.scoring.journal import Journal
    from t2ialign.web.embedded import Shown

EXPLAINED = """
This is the protocol of T2I-Keypoints-Eval (PromptEnhancer, arXiv 2509.04545): the judge sees the image and
the user's prompt, and answers one question per key point. The table of --points is that of the benchmark
(prompt, prompt_points, prompt_points_des), UniGenBench's CSV, GenEval's metadata, or rows of your own
(prompt, points). Without it the key points are extracted by the language model of --extract, or else by
rules; the oracle reads them from the captions. A question whose answer cannot be read is put a second time,
and then counted apart. The official script counts it as wrong, so both figures are reported."""

JOURNAL, POINTS = "journal.jsonl", "points.jsonl"
BACKENDS = ("oracle", "yes_no", "written", "head")
UNREAD = "could be read, asked twice; expected a JSON list; resume, or take another model with --extract"
BROKEN = 3
"""Exit code when some key point has no verdict."""
SHOWN = 5
"""Errors that are quoted on the terminal; the rest are in the result."""

Row = dict[str, Any]
Points = dict[str, "list[KeyPoint] | None"]
"""Prompt -> its key points; None where a model's answer on them could not be read."""
Finder = Callable[[Sequence[str]], Points]


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

    Raises ValueError for bad arguments, an output in use, and pictures without a key point.
    """
    _check(args)
    with locks.hold_folder(args.output):
        if args.resume is None:
            locks.check_free(args.output, advice="keep its verdicts with --resume latest, or ")
        return _judged(args)


def _judged(args: argparse.Namespace) -> int:
    from t2ialign.scoring.journal import Journal
    from t2ialign.scoring.prompts import Prompts
    from t2ialign.scoring.rows import Columns
    from t2ialign.scoring.sources import open_source

    source, of = open_source(args.samples, Prompts(), Columns()), _of(args)
    points, total = wanted(source, _finder(args))
    journal_file = args.output / JOURNAL
    resume = args.resume is not None
    with closing(Journal(journal_file, of, resume=resume, done=is_read, whole=has_verdicts)) as journal:
        _judge(args, journal, _asked(source, points), points, total)
        rows = sorted(journal.rows(), key=lambda row: (row["shard"], row["row"]))
    return finish(args.output, of, rows, points, source)


def is_read(row: Row) -> bool:
    """Whether a journal's row has all its verdicts; one with an unreadable answer is judged again."""
    return row["error"] is None and all(verdict["match"] is not None for verdict in row["verdicts"])


def has_verdicts(row: Row) -> bool:
    """Whether a journal's row is one that judging writes."""
    verdicts = row.get("verdicts")
    if not isinstance(verdicts, list) or (verdicts and not isinstance(row.get("prompt"), str)):
        return False
    return all(
        isinstance(verdict, dict)
        and {"kind", "description", "match", "reason"} <= verdict.keys()
        and isinstance(verdict["match"], float | int | None)
        for verdict in verdicts
    )


def wanted(source: Source, find: Finder) -> tuple[Points, int]:
    """The key points of every prompt of a source, before any picture is opened, and how many rows to judge.

    Raises ValueError as `find` does, and if there is no prompt or no key point at all.
    """
    from rewards.keypoints.taxonomy import LETTERS
    from rewards.text.length import too_long

    prompts = Counter(item.prompt for item in source.items())
    points = find([prompt for prompt in prompts if prompt and not too_long(prompt, LETTERS)])
    if not any(points.values()):
        raise ValueError(
            f"got {len(points)} prompts in {source.name} and no key point in them; expected prompts that ask "
            "for something of the 24 kinds; see docs/keypoints.md"
        )
    return points, sum(count for prompt, count in prompts.items() if not prompt or points.get(prompt) != [])


def finish(
    output: Path, of: dict[str, Any], rows: Sequence[Row], points: Points, source: Source | None = None
) -> int:
    """Write the results of the journal's rows and print the table -> the exit code.

    The page shows images that miss a key point if `source`, which holds them, is given.
    """
    from rich.console import Console

    from t2ialign.io.messages import one_line
    from t2ialign.web import keypoint_report as keypoint_report

    bare = sum(mine == [] for mine in points.values())
    images = _images(source, keypoint_report.missing(rows)) if source is not None else {}
    result, table = keypoint_report.write(output, of, rows, prompts_without_key_points=bare, images=images)
    Console(markup=False).print(table)
    for row in result["errors"][:SHOWN]:
        print(one_line(f"not judged: {row['error']}"))
    print(f"{keypoint_report.lead(result)}; results in {output}")
    return BROKEN if result["errors"] or result["unreadable"] else 0


def _images(source: Source, rows: Sequence[Mapping[str, Any]]) -> dict[str, Shown]:
    """The images of some of the journal's rows, by id."""
    from t2ialign.scoring.thumbnails import thumbnails

    ids = {(row["shard"], row["row"]): row["id"] for row in rows}
    wanted = {(row["shard"], row["row"]): row["file"] for row in rows}
    return {ids[place]: image for place, image in thumbnails(source, wanted)}


def _judge(
    args: argparse.Namespace, journal: Journal, asked: Iterable[Item], points: Points, total: int
) -> None:
    """Rows into the journal for every picture without verdicts."""
    from t2ialign.progress import Progress

    todo = journal.todo(asked)
    first = next(todo, None)
    if first is None:
        return
    from t2ialign.scoring.judged import judged_rows

    evaluator = _evaluator(args)
    with Progress(initial=len(journal.kept), total=total, desc="keypoints", unit="image") as bar:
        stream = chain([first], todo)
        while batch := list(islice(stream, args.batch_size)):
            for rows in judged_rows(evaluator, batch, points, args.max_batch_pixels):
                journal.add(rows)
                journal.push()
                bar.update(len(rows))


def _asked(source: Source, points: Points) -> Iterator[Item]:
    """The items that ask for something, and as errors those of which that is not known."""
    from rewards.keypoints.taxonomy import LETTERS
    from rewards.text.length import too_long

    for item in source.items():
        if item.error is not None:
            yield item
        elif not item.prompt:
            missing = f"{item.file}: got no prompt; expected a column prompt, or NAME.txt beside it; add it"
            yield replace(item, image=None, error=missing)
        elif wrong := too_long(item.prompt, LETTERS):
            yield replace(item, image=None, error=f"{item.file}: {wrong}")
        elif (mine := points[item.prompt]) is None:
            yield replace(item, image=None, error=f"{item.file}: got no key points that {UNREAD}")
        elif mine:
            yield item


def _finder(args: argparse.Namespace) -> Finder:
    """Who knows the key points of prompts."""
    if args.extract is not None:
        return partial(_extracted, args)
    one: Callable[[str], Sequence[KeyPoint]] = _captioned
    if args.points is not None:
        from t2ialign.evaluation.keypoints.files import PointFile

        one = PointFile(args.points)
    elif args.backend != "oracle":
        from rewards.keypoints.rules import extract

        one = extract
    return lambda prompts: {prompt: list(one(prompt)) for prompt in prompts}


def _extracted(args: argparse.Namespace, prompts: Sequence[str]) -> Points:
    from rewards.keypoints.llm import Extractor
    from rewards.llm.choose import writer
    from t2ialign.evaluation.keypoints.extraction import extract_all
    from t2ialign.rewriting.arguments import parse_options

    options = parse_options(args.extract_option, "--extract-option")
    tokens = {"tokens": options.pop("tokens")} if "tokens" in options else {}
    return extract_all(
        lambda: Extractor(writer(args.extract, args.extract_url, **options), **tokens),
        prompts,
        args.output / POINTS,
        model=args.extract,
    )


def _captioned(prompt: str) -> list[KeyPoint]:
    from rewards.keypoints.oracle import shapes_points

    try:
        return shapes_points(prompt)
    except ValueError as error:
        raise ValueError(f"{error}; or judge other pictures with another --backend") from error


def _evaluator(args: argparse.Namespace) -> AlignEvaluator:
    import rewards
    from rewards.device import default_device
    from rewards.keypoints.evaluator import AlignEvaluator
    from t2ialign.rewriting.arguments import parse_options

    given = {"weights": args.weights, "url": args.url}
    options = {key: value for key, value in given.items() if value is not None}
    options |= parse_options(args.option, "--option")
    found = rewards.load("evaluator", backend=args.backend, **options).to(default_device())
    assert isinstance(found, AlignEvaluator), "that is what the name stands for"
    return found


def _of(args: argparse.Namespace) -> dict[str, Any]:
    """What the verdicts are of: a resumed run must be of the same."""
    from t2ialign.data.sources import identity
    from t2ialign.rewriting.arguments import parse_options
    from t2ialign.scoring.journal import answering

    there = Path(args.samples).exists()
    return {
        "samples": str(Path(args.samples).resolve()) if there else args.samples,
        "points": identity(str(args.points)) if args.points else None,
        **{
            "extract": args.extract,
            "extract_options": answering(parse_options(args.extract_option, "--extract-option")),
        },
        **{"backend": args.backend, "weights": args.weights, "url": args.url},
        "options": answering(parse_options(args.option, "--option")),
    }


def check_models(args: argparse.Namespace) -> None:
    """Raises ValueError for models that are to be on this machine and are not."""
    from rewards.weights import check_there

    models = {"--weights": (args.weights, args.url), "--extract": (args.extract, args.extract_url)}
    for flag, (name, url) in models.items():
        if name is not None and url is None:
            check_there(name, f"{flag} {name}")


def _check(args: argparse.Namespace) -> None:
    if args.batch_size < 1:
        raise ValueError(f"got --batch-size {args.batch_size}; expected at least 1; raise it")
    if args.points is not None and not (args.points.is_file() or args.points.is_dir()):
        raise ValueError(
            f"got --points {args.points}, which does not exist; expected a table; check the path"
        )
    if args.extract is None and (args.extract_url or args.extract_option):
        raise ValueError(
            "got --extract-url or --extract-option without --extract; expected its model; name it"
        )
    if args.extract is not None and args.points is not None:
        raise ValueError("got --points and --extract; expected one source of key points; drop the other")
    if args.backend == "head" and args.weights is None:
        raise ValueError("got --backend head without --weights; expected its folder; name it")
    check_max_batch_pixels(args.max_batch_pixels)
    check_models(args)
    check_place(args.output, "--output")
