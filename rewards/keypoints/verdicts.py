"""Verdicts on key points: whether an image shows each thing that a prompt asks for, and one number of them.

`Checker` is the interface of what judges; its kinds are `evaluator_yes_no.py`, `evaluator_written.py`,
`keypoint_oracle.py` and `evaluator_head.py`. `evaluator.py` makes a reward of one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from rewards.keypoints.taxonomy import KeyPoint, kinds

AGGREGATES = ("plain", "balanced", "all")
SHOWN = 0.5
"""A key point counts as shown above this match."""

PromptPoint = tuple[str, KeyPoint]
"""A prompt and one of its key points."""


@dataclass(frozen=True)
class Verdict:
    """The match of an image with a key point, in [0, 1], or None where the answer could not be read."""

    point: KeyPoint
    match: float | None
    reason: str = ""
    """The reason; for an answer that could not be read, that answer."""


@dataclass(frozen=True)
class Evaluation:
    """The verdicts on one image for one prompt, and their aggregate; None if one could not be read."""

    prompt: str
    verdicts: tuple[Verdict, ...]
    score: float | None


class Checker(nn.Module, ABC):
    """Judges key points on images; a module, so that what it holds moves with the reward."""

    @abstractmethod
    def check(self, images: Tensor, pairs: Sequence[Sequence[PromptPoint]]) -> list[list[Verdict]]:
        """images (B, 3, H, W) in [0, 1], for each its (prompt, key point) pairs -> a verdict a pair."""


def rarity(counts: Mapping[str, int] | None = None) -> dict[str, float]:
    """Kind id -> 1 / its share: of the taxonomy's, or of a corpus in which it occurs `counts` times.

    Kinds that a corpus lacks count as met once. Raises ValueError for other kinds, and counts below 0.
    """
    if counts is None:
        return {kind.id: 1 / kind.share for kind in kinds().values()}
    if stray := sorted(set(counts) - set(kinds())):
        raise ValueError(f"got counts of {stray[0]!r}; expected kinds such as 'counting'; see keypoints.json")
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in counts.values()):
        raise ValueError(f"got counts {dict(counts)}; expected whole numbers from 0 on; correct them")
    total = sum(counts.values()) or 1
    return {kind: total / max(counts.get(kind, 0), 1) for kind in kinds()}


def aggregate(verdicts: Sequence[Verdict], how: str, weight: Mapping[str, float]) -> float | None:
    """Verdicts of one image -> one number in [0, 1]; None if one of them could not be read.

    "plain": the mean match. "balanced": the mean weighted by `weight` of the kind, so that a prompt's rare
    kinds count more. "all": 1 where every match is above `SHOWN`, else 0. Raises ValueError without verdicts.
    """
    if not verdicts:
        raise ValueError("got no verdicts; expected at least one key point; leave such prompts out")
    matches = [verdict.match for verdict in verdicts if verdict.match is not None]
    if len(matches) < len(verdicts):
        return None
    if how == "all":
        return float(min(matches) > SHOWN)
    shares = [weight[verdict.point.kind] if how == "balanced" else 1.0 for verdict in verdicts]
    return sum(share * match for share, match in zip(shares, matches, strict=True)) / sum(shares)
