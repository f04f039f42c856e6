"""Scores of images -> estimates with intervals, alone or against a baseline of the same prompts and seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from t2ialign.evaluation.statistics import Estimate, bootstrap_ci, by_category
from t2ialign.io import naming

if TYPE_CHECKING:
    from rewards import Reward
    from t2ialign.evaluation.manifest_scores import Score

Image = tuple[str, int | None]
"""Prompt and seed."""
Summary = dict[str, Estimate]
"""Estimates by row of the table: "all", then each category."""


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


def matching(source: Sequence[Image], baseline: Sequence[Image]) -> list[tuple[int, int]]:
    """Places in both lists of what stands in both. Raises ValueError as `summarise` does."""
    for name, images in (("source", source), ("baseline", baseline)):
        if twice := [image for image, count in Counter(images).items() if count > 1]:
            prompt, seed = twice[0]
            raise ValueError(
                f"got more than one image of prompt {prompt!r} and seed {seed} in the {name}; expected one, "
                "to pair it; give each image its own seed in the manifest, or leave out "
                f"{naming.name('baseline')}"
            )
    place = {image: index for index, image in enumerate(baseline)}
    pairs = [(index, place[image]) for index, image in enumerate(source) if image in place]
    if not pairs:
        raise ValueError(
            "got a baseline that shares no prompt and seed with the source; expected the same ones; sample "
            f"both with the same prompts, {naming.name('num_images_per_prompt')} and {naming.name('seed')}"
        )
    return pairs


def _estimates(reward: Reward, rows: Sequence[Score], key: str, seed: int) -> Summary:
    """Mean and interval of `key`, over all whole rows and in each category of the reward."""
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
    pairs = [(scores[i], baseline[j]) for i, j in matching(*sides)]
    return [
        row | ({"change": row["score"] - other["score"]} if "score" in row and "score" in other else {})
        for row, other in pairs
    ]
