"""Key points of many prompts by a language model, kept in a file that a killed run goes on with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rewards.keypoints.llm import Extractor
from rewards.keypoints.taxonomy import KeyPoint, from_json, to_json
from t2ialign.io import jsonl

BATCH = 32
"""Prompts asked at a time, and so what a kill may cost."""


def extract_all(
    make: Callable[[], Extractor], prompts: Sequence[str], file: Path, *, model: str
) -> dict[str, list[KeyPoint] | None]:
    """P prompts -> the key points of each, None where the model's answers could not be read.

    A row (prompt, points, model) is appended to `file` for each that could; what it holds is not asked again.
    Its rows are those that `--points` and `train rewrite_grpo prompts=` read. Raises ValueError for a file of
    another model, and as the model does.
    """
    from t2ialign.progress import Progress

    points_of: dict[str, list[KeyPoint] | None] = dict.fromkeys(prompts)
    for row in jsonl.read(file):
        if row.get("model") != model:
            raise ValueError(
                f"got key points by {row.get('model')!r} in {file}; expected {model!r}; choose another "
                "--output"
            )
        points_of[row["prompt"]] = from_json(row["points"])
    missing = [prompt for prompt in points_of if points_of[prompt] is None]
    if not missing:
        return points_of
    extractor = make()
    with Progress(
        initial=len(points_of) - len(missing), total=len(points_of), desc="extract", unit="prompt"
    ) as bar:
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            points = extractor.extract(part)
            points_of |= zip(part, points, strict=True)
            jsonl.append(
                file,
                [
                    {"prompt": prompt, "points": to_json(points_of_prompt), "model": model}
                    for prompt, points_of_prompt in zip(part, points, strict=True)
                    if points_of_prompt is not None
                ],
            )
            bar.update(len(part))
    return points_of
