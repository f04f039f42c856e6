"""Images to numbers: rewards, means with intervals, key points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from t2ialign.api.parameters import takes_former_names
from t2ialign.scoring.budget import MAX_BATCH_PIXELS

if TYPE_CHECKING:
    from rewards import Reward
    from t2ialign.tasks.evaluating import Evaluation
    from t2ialign.tasks.judging import KeypointResult
    from t2ialign.tasks.score_table import ScoreTable

Place = str | Path
"""A file or a folder."""
Options = Mapping[str, Any]
"""Settings by their names."""


@takes_former_names
def score(
    images: Any,
    rewards: str | Reward | Iterable[str | Reward] | Mapping[str, Reward],
    prompts: Any = None,
    *,
    options: Mapping[str, Options] | None = None,
    batch_size: int = 64,
    max_batch_pixels: int = MAX_BATCH_PIXELS,
    workers: int | None = None,
    device: str | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    ray: int | None = None,
    prompts_from_names: bool = False,
    image_column: str | None = None,
    prompt_column: str | None = None,
    split: str = "train",
    output: Place | None = None,
    html: Place | None = None,
    top: int = 24,
    resume: bool = False,
) -> ScoreTable:
    """Score images with rewards -> a table: one column a reward, NaN where an image could not be scored.

    images: a folder, a table, .tar shards, a pattern or a name on the Hub; or `Samples`, PIL images, paths,
    arrays, tensors or a pandas table. rewards: names, or objects. prompts: a table of files and prompts or
    one prompt for all; for images in memory also one each. options: of named rewards, by name. workers:
    processes that decode; ray: of a Ray cluster. image_column, prompt_column, split: of a table or data set.
    output: a .parquet, .csv or .jsonl file, whose journal `resume` goes on with. html: a page of the best and
    worst, `top` of each reward. Raises ValueError for a setting out of range, and for what is not there.
    """
    from t2ialign.tasks import scorers, scoring
    from t2ialign.tasks.arguments import path_of
    from t2ialign.tasks.images import Place as Images
    from t2ialign.tasks.score_table import ScoreTable

    how = scorers.Scoring(
        rewards=scorers.rewards_of(rewards),
        options=options or {},
        batch_size=batch_size,
        max_batch_pixels=max_batch_pixels,
        workers=workers,
        device=device,
        precision=precision,
        ray=ray,
    )
    where = Images(
        images=images,
        prompts=prompts,
        prompts_from_names=prompts_from_names,
        image_column=image_column,
        prompt_column=prompt_column,
        split=split,
    )
    return ScoreTable(scoring.run(how, where, path_of(output), html=path_of(html), top=top, resume=resume))


@takes_former_names
def evaluate(
    images: Any,
    reward: str | Reward,
    *,
    prompts: Any = None,
    baseline: Any = None,
    batch_size: int = 64,
    seed: int = 0,
    output: Place | None = None,
    resume: bool = False,
) -> Evaluation:
    """Score images with one reward -> its mean with a 95 % interval, by category, and against a baseline.

    images, baseline: a folder of samples, a manifest, `Samples`, or images in memory with their prompts. The
    baseline must be of the same prompts and seeds; the difference is taken pair by pair. seed: of the
    bootstrap. output: a folder for the scores and evaluation.json, in which `resume` goes on. Raises
    ValueError for a setting out of range, a baseline that does not match, and an output of another run.
    """
    from t2ialign.tasks import evaluating
    from t2ialign.tasks.arguments import path_of

    how: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "resume": resume}
    return evaluating.run(images, reward, prompts=prompts, baseline=baseline, output=path_of(output), **how)


@takes_former_names
def judge_keypoints(
    images: Any,
    *,
    points: Place | None = None,
    extract: str | None = None,
    extract_url: str | None = None,
    extract_options: Options | None = None,
    backend: Literal["oracle", "yes_no", "written", "head"] = "oracle",
    weights: str | None = None,
    url: str | None = None,
    options: Options | None = None,
    batch_size: int = 16,
    max_batch_pixels: int = MAX_BATCH_PIXELS,
    output: Place = Path("runs/keypoints"),
    resume: bool = False,
) -> KeypointResult:
    """Judge each key point of each prompt on its image -> accuracy by kind with intervals, and every verdict.

    The protocol of T2I-Keypoints-Eval (PromptEnhancer, arXiv 2509.04545). images: a folder of samples or any
    source of `score`, or `Samples`. points: a table of key points; else a language model finds them (extract,
    extract_url, extract_options), else rules do. backend: the judge; weights, url, options: its model.
    output: a folder for verdicts, tables and a page, in which `resume` goes on. Raises ValueError for bad
    settings, an output in use, and images without a key point.
    """
    from t2ialign.tasks import judging
    from t2ialign.tasks.arguments import path_of

    how = judging.Judging(
        images=images,
        points=path_of(points),
        extract=extract,
        extract_url=extract_url,
        extract_options=extract_options or {},
        backend=backend,
        weights=weights,
        url=url,
        options=options or {},
        batch_size=batch_size,
        max_batch_pixels=max_batch_pixels,
        output=Path(output).expanduser(),
    )
    return judging.run(how, resume=resume)
