"""The best of several candidates for each image: all are kept with their scores, one is the image."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewards.assets import TOYS
from t2ialign.io import jsonl, naming

if TYPE_CHECKING:
    from rewards import Reward
    from rewards.keypoints.evaluator import AlignEvaluator

FOLDER, LIST, SCORES = "candidates", "candidates.jsonl", "scores.jsonl"
"""The folder and the list of all candidates, in the run's folder; the journal of their scores."""
ORACLE = {"backend", "weights", "url"}
"""Options of the evaluator without which a toy model is judged by the oracle."""
KNOWN = ORACLE | {"points"}
"""Options that select the evaluator where no reward is named."""

Row = dict[str, Any]
log = logging.getLogger(__name__)


def candidates(rows: Sequence[Row], texts: Sequence[dict[str, str]]) -> list[Row]:
    """The rows of I images and N dicts of prompt -> rewrite -> I x N rows; those of an image stand together.

    Candidate j of image i has the seed of the first image + i + j x I: no two share one, and the first
    candidates are the images of a run without others.
    """
    return [
        {
            **row,
            "file": f"{Path(row['file']).stem}-{number}.png",
            "seed": row["seed"] + number * len(rows),
            "rewritten": rewrites[row["prompt"]],
            "candidate": number,
        }
        for row in rows
        for number, rewrites in enumerate(texts)
    ]


def default_reward(model: str, options: Mapping[str, Any], prompts: Sequence[str]) -> str:
    """The name of the reward that judges where none is named.

    That is the evaluator, if the options say how it judges, or if the model is a toy and all
    prompts are captions that its oracle reads; the toy CLIP for other prompts of a toy. Raises
    ValueError for any other model, which nothing here can judge by default.
    """
    if KNOWN & options.keys() or (model in TOYS and all(map(_is_caption, prompts))):
        return "evaluator"
    if model in TOYS:
        log.info("the candidates are judged by toy-clip, since a prompt is no caption that the oracle reads")
        return "toy-clip"
    names = [naming.given("reward", name) for name in ("imagereward", "hpsv2.1", "evaluator")]
    raise ValueError(
        f"got {naming.name('best_of')} without {naming.name('reward')}; expected the name of what judges the "
        f"candidates; name it, for example {names[0]}, {names[1]}, or {names[2]} with "
        f"{naming.name('reward_options')} weights=MODEL"
    )


def load_reward(name: str, options: dict[str, Any], model: str, prompts: Sequence[str]) -> Reward:
    """The reward that judges; the evaluator of a toy is the oracle unless `options` say otherwise.

    Raises ValueError as `rewards.load` does, and if the evaluator finds nothing to judge in a prompt.
    """
    import rewards
    from rewards.keypoints.evaluator import AlignEvaluator

    if name == "evaluator" and model in TOYS and not ORACLE & options.keys():
        options = {"backend": "oracle", **options}
    reward = rewards.load_all([name], {name: options})[name]
    if isinstance(reward, AlignEvaluator):
        for prompt in dict.fromkeys(prompts):
            _check_points(reward, prompt)
    return reward


def score(
    reward: Reward, of: dict[str, Any], rows: Sequence[Row], folder: Path, *, batch_size: int
) -> list[Row]:
    """Each image of `folder` judged for its row's "prompt" -> the rows with "score", or "error" and None.

    What the journal there has is not asked again, but for errors. Raises ValueError for a journal of another
    reward than `of` says, and for a reward that fails on the first images one and all.
    """
    from rewards.device import default_device
    from t2ialign.progress import Progress
    from t2ialign.scoring.engine import Engine
    from t2ialign.scoring.items import Item, stamp
    from t2ialign.scoring.journal import Journal

    files = [folder / row["file"] for row in rows]
    items = [
        Item(0, place, row["file"], row["prompt"], file, stamp(file))
        for place, (row, file) in enumerate(zip(rows, files, strict=True))
    ]
    device = default_device()
    with closing(Journal(folder / SCORES, of, resume=True)) as journal:
        todo = list(journal.todo(items))
        engine = Engine({"reward": reward}, device=device, batch_size=batch_size, proven=bool(journal.done))
        with Progress(total=len(items), initial=len(items) - len(todo), desc="judge", unit="image") as bar:
            for batch in engine.score(todo):
                journal.add(batch)
                bar.update(len(batch))
        journal.push()
        scores_of = {row["id"]: row for row in journal.rows()}
    scored = [scores_of[item.identity] for item in items]
    return [
        {**row, "score": result["scores"].get("reward"), "error": result["error"]}
        for row, result in zip(rows, scored, strict=True)
    ]


def keep(output: Path, scored: Sequence[Row], reward: str) -> list[Row]:
    """Copy the best candidate of each image into `output` and list all of them -> the images' rows.

    Of equal scores the first is taken; where nothing could be scored the first candidate, without a score.
    """
    size = scored[0]["best_of"]
    best = [_best(scored[start : start + size]) for start in range(0, len(scored), size)]
    chosen = {row["file"] for row in best}
    listed = [
        {**row, "file": f"{FOLDER}/{row['file']}", "reward": reward, "kept": row["file"] in chosen}
        for row in scored
    ]
    jsonl.rewrite(output / LIST, listed)
    rows = []
    for row in best:
        name = f"{Path(row['file']).stem.rpartition('-')[0]}.png"
        _copy(output / FOLDER / row["file"], output / name)
        shown = {key: value for key, value in row.items() if key != "error"}
        rows.append({**shown, "file": name, "reward": reward})
    return rows


def summary(scored: Sequence[Row], rows: Sequence[Row], reward: str) -> str:
    """One line: mean scores of what was kept and of the first candidates, and how many have none."""
    means = [_mean(part) for part in (rows, [row for row in scored if row["candidate"] == 0])]
    broken = [row["error"] for row in scored if row["error"]]
    line = f"best of {scored[0]['best_of']} by {reward}: mean {means[0]}, of first candidates {means[1]}"
    return f"{line}; {len(broken)} of {len(scored)} not scored: {broken[0]}" if broken else line


def divergence(n: int) -> float:
    """log n - (n - 1) / n nats: at most so far is the best of n independent samples from the model.

    The Kullback-Leibler divergence itself where no two samples score alike. Stiennon et al. 2020, appendix
    G.3; a bound in general: Beirami et al. 2024, arXiv 2401.01879.
    """
    return math.log(n) - (n - 1) / n


def _is_caption(prompt: str) -> bool:
    """Whether the oracle of the toy world reads it."""
    from rewards.keypoints.oracle import toy_points

    try:
        return bool(toy_points(prompt))
    except ValueError:
        return False


def _check_points(evaluator: AlignEvaluator, prompt: str) -> None:
    """Hours before it would be asked: that there is something to judge. Raises ValueError if not."""
    try:
        points = evaluator.points(prompt)
    except ValueError as error:
        raise ValueError(
            f"{error}; or name its key points in a file by {naming.name('reward_options')} points=FILE"
        ) from error
    if not points:
        raise ValueError(
            f"got {prompt!r} without key points; expected at least one to judge; leave it out, or name "
            f"them in a file by {naming.name('reward_options')} points=FILE"
        )


def _best(some: Sequence[Row]) -> Row:
    whole = [row for row in some if row["score"] is not None]
    return max(whole, key=lambda row: float(row["score"])) if whole else some[0]


def _mean(rows: Sequence[Row]) -> str:
    values = [row["score"] for row in rows if row["score"] is not None]
    return f"{sum(values) / len(values):.4g}" if values else "unknown"


def _copy(source: Path, target: Path) -> None:
    scratch = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, scratch)
    scratch.replace(target)
