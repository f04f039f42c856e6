"""t2ialign evaluate: score a manifest's images with a reward, alone or against a baseline."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from t2ialign.io import atomic, locks, manifest
from t2ialign.io.messages import one_line

if TYPE_CHECKING:
    from rewards import Reward
    from t2ialign.evaluation.manifest_scores import Score
    from t2ialign.evaluation.statistics import Estimate

RESULT, SCORES, BASELINE_SCORES = "evaluation.json", "scores.jsonl", "baseline_scores.jsonl"
STARTED = "evaluation_of.json"
"""Says from the start what the scores beside it are of."""
BROKEN = 3
"""Exit code when some image could not be scored."""
SHOWN = 5
"""Broken images that are named on the terminal; the rest are in the journal."""

Image = tuple[str, int | None]
"""Prompt and seed."""
Summary = dict[str, "Estimate"]
"""Estimates by row of the table: "all", then each category."""


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
    if args.batch_size < 1 or args.seed < 0:
        raise ValueError(
            f"got --batch-size {args.batch_size} and --seed {args.seed}; expected at least 1 and 0"
        )
    import rewards

    rewards.check(args.reward)
    sources = {SCORES: args.source} | ({BASELINE_SCORES: args.baseline} if args.baseline else {})
    sets = {name: manifest.read(source) for name, source in sources.items()}
    output = args.output or (args.source if args.source.is_dir() else args.source.parent)
    if args.baseline:
        _matching(*([(row.prompt, row.seed) for row in rows] for rows in sets.values()))
    of = {"reward": args.reward} | {
        name: source and _relative(source, output)
        for name, source in (("source", args.source), ("baseline", args.baseline))
    }
    with locks.hold_folder(output):
        _claim(output, of, resume=args.resume is not None)
        return _score(args, sets, output)


def _score(args: argparse.Namespace, sets: dict[str, list[manifest.Rendered]], output: Path) -> int:
    import rewards
    from rewards.device import default_device
    from t2ialign.evaluation.manifest_scores import score_manifest
    from t2ialign.progress import Progress
    from t2ialign.web import evaluation_page
    from t2ialign.web.evaluation_page import Side

    device = default_device()
    reward = rewards.load(args.reward).to(device)
    options = {"batch_size": args.batch_size, "device": device}
    with Progress(total=sum(map(len, sets.values())), desc="score", unit="image") as bar:
        scored = {
            name: score_manifest(reward, args.reward, rows, output / name, **options, progress=bar.update)
            for name, rows in sets.items()
        }
    columns = summarise(reward, scored[SCORES], scored.get(BASELINE_SCORES), seed=args.seed)
    broken = [row for rows in scored.values() for row in rows if "error" in row]
    head = {"reward": args.reward, "source": str(args.source), "baseline_source": _text(args.baseline)}
    results = {
        name: {row: value.to_json() for row, value in column.items()} for name, column in columns.items()
    }
    atomic.write_json(output / RESULT, {**head, **results, "errors": len(broken)})
    before = Side(args.baseline, scored[BASELINE_SCORES]) if args.baseline else None
    page = evaluation_page.write(output, args.reward, columns, Side(args.source, scored[SCORES]), before)
    _show(args.reward, columns, broken, rates=_are_rates(scored))
    print(f"images, prompts and distribution: {page}")
    return BROKEN if broken else 0


def summarise(
    reward: Reward, scores: Sequence[Score], baseline: Sequence[Score] | None, *, seed: int = 0
) -> dict[str, Summary]:
    """{"scores", and with a baseline "baseline" and "difference"} -> estimates for "all" and each category.

    The difference is taken between images of the same prompt and seed. Raises ValueError if none match, or
    if a prompt and seed stand twice on either side.
    """
    columns = {"scores": _estimates(reward, scores, "score", seed)}
    if baseline is not None:
        columns["baseline"] = _estimates(reward, baseline, "score", seed)
        columns["difference"] = _estimates(reward, _pairs(scores, baseline), "change", seed)
    return columns


def _claim(output: Path, of: dict[str, str | None], *, resume: bool) -> None:
    there = [name for name in (RESULT, SCORES, BASELINE_SCORES) if (output / name).exists()]
    if there and not resume:
        raise ValueError(
            f"got {output / there[0]} from an earlier run; expected no results there; "
            "keep its scores with --resume latest, or choose another --output"
        )
    file = output / STARTED
    if there and file.is_file():
        before = atomic.read_json(file)
        for key, value in of.items():
            if before.get(key) not in (value, None):
                raise ValueError(
                    f"got {key} {value} for {output}, which holds scores with {key} {before[key]}; expected "
                    "the same; choose another --output"
                )
    atomic.write_json(file, of)


def _relative(source: Path, output: Path) -> str:
    """The manifest as seen from the results, so that both may move together."""
    return os.path.relpath(
        (source / manifest.NAME if source.is_dir() else source).resolve(), output.resolve()
    )


def _estimates(reward: Reward, rows: Sequence[Score], key: str, seed: int) -> Summary:
    """Mean and interval of `key`, over all whole rows and in each category of the reward."""
    from t2ialign.evaluation.statistics import bootstrap_ci, by_category

    whole = [row for row in rows if key in row]
    if not whole:
        return {}
    values, prompts = [row[key] for row in whole], [row["prompt"] for row in whole]
    categories = [reward.category(prompt) for prompt in prompts]
    return {
        "all": bootstrap_ci(values, prompts, seed=seed),
        **by_category(values, prompts, categories, seed=seed),
    }


def _pairs(scores: Sequence[Score], baseline: Sequence[Score]) -> list[Score]:
    """Rows of the same prompt and seed in both, with the change of their score where both have one."""
    sides = ([(row["prompt"], row["seed"]) for row in rows] for rows in (scores, baseline))
    pairs = [(scores[i], baseline[j]) for i, j in _matching(*sides)]
    return [
        row | ({"change": row["score"] - other["score"]} if "score" in row and "score" in other else {})
        for row, other in pairs
    ]


def _matching(source: list[Image], baseline: list[Image]) -> list[tuple[int, int]]:
    """Places in both lists of what stands in both."""
    for name, images in (("source", source), ("baseline", baseline)):
        if twice := [image for image, count in Counter(images).items() if count > 1]:
            prompt, seed = twice[0]
            raise ValueError(
                f"got more than one image of prompt {prompt!r} and seed {seed} in the {name}; expected "
                "one, to pair it; give each image its own seed in the manifest, or leave out --baseline"
            )
    place = {image: index for index, image in enumerate(baseline)}
    pairs = [(index, place[image]) for index, image in enumerate(source) if image in place]
    if not pairs:
        raise ValueError(
            "got a baseline that shares no prompt and seed with the source; expected the same ones; "
            "sample both with the same prompts, -n and --seed"
        )
    return pairs


def _are_rates(scored: dict[str, list[Score]]) -> bool:
    return all(row["score"] in (0.0, 1.0) for rows in scored.values() for row in rows if "score" in row)


def _show(name: str, columns: dict[str, Summary], broken: Sequence[Score], *, rates: bool) -> None:
    from rich.console import Console

    from t2ialign.evaluation.statistics import table

    unit = " (per cent)" if rates else ""
    title = f"{name}{unit}, mean [95 % interval, bootstrap by prompt]"
    Console(markup=False).print(table(title, columns, scale=100.0 if rates else 1.0))
    for row in broken[:SHOWN]:
        print(one_line(f"not scored: {row['error']}"))
    if broken:
        print(
            f"{len(broken)} images could not be scored; they count nowhere, and are in the journal as errors"
        )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
