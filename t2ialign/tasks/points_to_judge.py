"""Sources of key points: a table, a language model, rules, or the captions of the toy model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from t2ialign.io import naming

if TYPE_CHECKING:
    from rewards.keypoints.taxonomy import KeyPoint
    from t2ialign.scoring.items import Item, Source

POINTS = "points.jsonl"
UNREAD = (
    "could be read, asked twice; expected a JSON list; resume, or take another language model to find them"
)
Points = dict[str, "list[KeyPoint] | None"]
"""Prompt -> its key points; None where a model's answer on them could not be read."""
Finder = Callable[[Sequence[str]], Points]


class PointSettings(Protocol):
    """The settings of a run that choose the source of its key points."""

    @property
    def points(self) -> Path | None:
        """A table of key points."""

    @property
    def extract(self) -> str | None:
        """A language model that reads prompts."""

    @property
    def extract_url(self) -> str | None:
        """Its server."""

    @property
    def extract_options(self) -> Mapping[str, Any]:
        """Its options."""

    @property
    def backend(self) -> str:
        """The judge; the oracle reads prompts itself."""

    @property
    def output(self) -> Path:
        """The folder of the run, which keeps what a language model has found."""


def wanted(source: Source, find: Finder) -> tuple[Points, int]:
    """The key points of every prompt of a source, before any image is opened, and how many rows to judge.

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


def items_to_judge(source: Source, points: Points) -> Iterator[Item]:
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
        elif (points_of_prompt := points[item.prompt]) is None:
            yield replace(item, image=None, error=f"{item.file}: got no key points that {UNREAD}")
        elif points_of_prompt:
            yield item


def finder(how: PointSettings) -> Finder:
    """The source of the key points of prompts."""
    if how.extract is not None:
        return partial(_extracted, how)
    one: Callable[[str], Sequence[KeyPoint]] = _captioned
    if how.points is not None:
        from t2ialign.evaluation.keypoints.files import PointFile

        one = PointFile(how.points)
    elif how.backend != "oracle":
        from rewards.keypoints.rules import extract

        one = extract
    return lambda prompts: {prompt: list(one(prompt)) for prompt in prompts}


def _extracted(how: PointSettings, prompts: Sequence[str]) -> Points:
    from rewards.keypoints.llm import Extractor
    from rewards.llm.choose import writer
    from t2ialign.evaluation.keypoints.extraction import extract_all

    model = how.extract
    assert model is not None, "this is the way with a model"
    options = dict(how.extract_options)
    tokens = {"tokens": options.pop("tokens")} if "tokens" in options else {}
    return extract_all(
        lambda: Extractor(writer(model, how.extract_url, **options), **tokens),
        prompts,
        how.output / POINTS,
        model=model,
    )


def _captioned(prompt: str) -> list[KeyPoint]:
    from rewards.keypoints.oracle import toy_points

    try:
        return toy_points(prompt)
    except ValueError as error:
        raise ValueError(f"{error}; or judge other images with another {naming.name('backend')}") from error
