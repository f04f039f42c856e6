"""AlignEvaluator judges whether an image shows each key point of the prompt, and makes one reward of it.

After PromptEnhancer (arXiv 2509.04545), whose evaluator was not released: key points of 24 kinds
(`keypoints.py`), each judged on the image, averaged. They come from the user's prompt, never from a rewritten
one: a rewriter that drops a hard wish would be paid for it. The judge is any vision-language model, the exact
one of the toy model, or a light head on CLIP.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.base import Reward
from rewards.checks import check_images, check_prompts
from rewards.keypoints.taxonomy import KeyPoint, from_json
from rewards.keypoints.verdicts import AGGREGATES, Checker, Evaluation, aggregate, rarity
from rewards.vlm.base import UnreadableAnswer

NAMES: dict[str, dict[str, str]] = {"evaluator": {}}
TABLE = {
    "evaluator": (
        "any VLM as for `vqascore`; a head fitted on a two-tower scorer; none for the toy world | "
        "the judge's own | its key points, one by one | [0, 1] | no | the judge's"
    ),
}

Source = Callable[[str], Sequence[KeyPoint]]
"""Prompt -> its key points."""
WANTED = (
    "asked twice; expected yes or no, in writing accept or reject; raise tokens= or top=, or change model"
)
KEEP = 4096
"""Prompts whose key points are kept."""


class AlignEvaluator(Reward):
    """Key points of the prompt judged on the image, as one number in [0, 1]; not differentiable.

    `points` finds the key points of a prompt, by default `keypoint_rules.extract`; each prompt is read once.
    `how`: "plain", "balanced" or "all", see `verdicts.aggregate`; "balanced" takes `counts` of the kinds in a
    corpus in place of the taxonomy's shares. Raises ValueError for another `how`, and counts without
    "balanced".
    """

    differentiable = False

    def __init__(
        self,
        checker: Checker,
        *,
        points: Source | None = None,
        how: str = "plain",
        counts: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        if how not in AGGREGATES:
            raise ValueError(f"got aggregate {how!r}; expected one of {', '.join(AGGREGATES)}; pass one")
        if counts is not None and how != "balanced":
            raise ValueError(f"got counts with aggregate {how!r}; expected 'balanced'; pass it, or no counts")
        self.checker, self.how, self.weights = checker, how, rarity(counts)
        self._find = lru_cache(KEEP)(points or _by_rules)

    def points(self, prompt: str) -> Sequence[KeyPoint]:
        """The key points of a prompt, kept for the next time. Raises ValueError as their source does."""
        return self._find(prompt)

    def judge(
        self,
        images: Tensor,
        prompts: Sequence[str],
        points: Sequence[Sequence[KeyPoint]] | None = None,
    ) -> list[Evaluation]:
        """images (B, 3, H, W) in [0, 1], B user prompts, for each its key points -> B evaluations.

        What could not be read has None as match and as score. Raises ValueError for shapes and ranges as a
        call does, for a prompt without key points, and as the checker does.
        """
        check_images(images)
        check_prompts(list(prompts), len(images))
        if points is not None and len(points) != len(prompts):
            raise ValueError(
                f"got key points of {len(points)} prompts for {len(prompts)}; expected a list each; pass them"
            )
        given = [None] * len(prompts) if points is None else points
        wanted = [
            [(prompt, points_of_prompt)] for prompt, points_of_prompt in zip(prompts, given, strict=True)
        ]
        return self._judged(images, wanted)

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B user prompts -> (B,) in [0, 1].

        Raises UnreadableAnswer, with NaN for the images concerned, if a verdict could not be read: never a
        zero. Raises ValueError as `judge` does.
        """
        return self.score_table(images, [[prompt] for prompt in prompts])

    def score_table(self, images: Tensor, candidates: list[list[str]]) -> Tensor:
        """images (B, 3, H, W), B lists of n_i prompts -> (sum n_i,): all questions of an image at once."""
        evaluations = self._judged(images, [[(prompt, None) for prompt in prompts] for prompts in candidates])
        values = [math.nan if one.score is None else one.score for one in evaluations]
        scores = torch.tensor(values, dtype=torch.float32, device=images.device)
        reasons = {row: _unread(one) for row, one in enumerate(evaluations) if one.score is None}
        if reasons:
            first = next(iter(reasons.values()))
            raise UnreadableAnswer(
                f"{first} for {len(reasons)} of {len(evaluations)} images, {WANTED}",
                {row: f"{reason}, {WANTED}" for row, reason in reasons.items()},
                scores,
                self,
            )
        return scores

    def _judged(
        self, images: Tensor, wanted: Sequence[Sequence[tuple[str, Sequence[KeyPoint] | None]]]
    ) -> list[Evaluation]:
        """For each image its prompts and their key points, None where the source is to say -> one each."""
        points = [[self._some(prompt, given) for prompt, given in rows] for rows in wanted]
        pairs = [
            [(row[0], point) for row, some in zip(rows, lists, strict=True) for point in some]
            for rows, lists in zip(wanted, points, strict=True)
        ]
        evaluations = []
        for rows, lists, verdicts in zip(wanted, points, self.checker.check(images, pairs), strict=True):
            left = iter(verdicts)
            for (prompt, _), some in zip(rows, lists, strict=True):
                few = tuple(next(left) for _ in some)
                evaluations.append(Evaluation(prompt, few, aggregate(few, self.how, self.weights)))
        return evaluations

    def _some(self, prompt: str, given: Sequence[KeyPoint] | None) -> Sequence[KeyPoint]:
        points = self.points(prompt) if given is None else given
        if not points:
            raise ValueError(
                f"got {prompt!r} without key points; expected at least one to judge; leave it out, or pass "
                "points= that has some"
            )
        return points


def read_points(path: str | Path) -> Source:
    """The source over a JSON file of prompt -> key points in the form of `keypoints.schema`.

    Raises ValueError for a file of another form; the source does for a prompt that is not in it.
    """
    file = Path(path)
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"got {file} ({error}); expected JSON of prompt to key points; check it") from error
    if not isinstance(rows, dict):
        raise ValueError(f"got {file} of another form; expected {{prompt: [key point, ...]}}; rewrite it")
    points = {prompt: from_json(rows_of_prompt) for prompt, rows_of_prompt in rows.items()}

    def look_up(prompt: str) -> Sequence[KeyPoint]:
        if prompt not in points:
            raise ValueError(f"got {prompt!r}, which {file} lacks; expected one of its prompts; add it")
        return points[prompt]

    return look_up


def build(
    *,
    backend: str = "yes_no",
    weights: str | None = None,
    url: str | None = None,
    points: Source | str | None = None,
    how: str = "plain",
    counts: Mapping[str, int] | None = None,
    towers: dict[str, Any] | None = None,
    **options: Any,
) -> AlignEvaluator:
    """The evaluator over a backend; `points` is a function, a file for `read_points`, or None for the rules.

    backend: "yes_no" and "written" ask the vision-language model in `weights`, or served so at `url`;
    "head" is what `evaluator_head.save` wrote to the folder `weights`, on a scorer of yours with its name as
    `reward`; "oracle" knows the toy world, and by default its captions' points.
    Other `options` are those of `vlm.judge`, `tokens` of "written" too.
    Raises ValueError for another backend, and as these do.
    """
    checker, default_source = _checker(backend, weights, url, towers, **options)
    source = read_points(points) if isinstance(points, str) else points
    return AlignEvaluator(checker, points=source or default_source, how=how, counts=counts)


def _checker(
    backend: str, weights: str | None, url: str | None, towers: dict[str, Any] | None, **options: Any
) -> tuple[Checker, Source | None]:
    """Return the checker of a backend, and the source of its key points if that is not the rules."""
    if backend in ("yes_no", "written"):
        from rewards.keypoints.evaluator_written import Written
        from rewards.keypoints.evaluator_yes_no import YesNo
        from rewards.vlm.choose import judge

        if backend == "yes_no":
            return YesNo(judge(weights, url, towers, **options)), None
        tokens = {"tokens": options.pop("tokens")} if "tokens" in options else {}
        return Written(judge(weights, url, towers, **options), **tokens), None
    if backend not in ("oracle", "head"):
        raise ValueError(f"got backend {backend!r}; expected yes_no, written, oracle or head; pass one")
    base = {"reward": options.pop("reward")} if backend == "head" and "reward" in options else {}
    if options or url is not None or (backend == "oracle") is (weights is not None):
        raise ValueError(
            f"got weights={weights!r}, url={url!r} and {', '.join(options) or 'no options'} of {backend}; "
            "expected no weights for oracle, a folder for head, perhaps with reward=, and nothing else; drop "
            "or pass them"
        )
    if backend == "oracle":
        from rewards.keypoints.oracle import ToyChecker, toy_points

        return ToyChecker(), toy_points
    from rewards.keypoints.evaluator_head import load

    assert weights is not None, "checked above"
    return load(weights, towers=towers, **base), None


def _by_rules(prompt: str) -> Sequence[KeyPoint]:
    from rewards.keypoints.rules import extract

    return extract(prompt)


def _unread(one: Evaluation) -> str:
    """Name the key point whose answer could not be read, and quote the end of that answer."""
    first = next(verdict for verdict in one.verdicts if verdict.match is None)
    answer = first.reason if len(first.reason) <= 120 else f"... {first.reason[-120:]}"
    return f"got {answer!r} on the key point {first.point.description!r}"
