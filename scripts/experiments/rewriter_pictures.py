"""Pictures of texts, judged by the oracle for the captions meant; a text and seed is rendered once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import rewards
from rewards.keypoints.evaluator import AlignEvaluator
from rewards.keypoints.oracle import shapes_points
from t2ialign.models.generate import generate
from t2ialign.models.load import load_policy
from t2ialign.toy.suite import GUIDANCE, STEPS

BATCH = 128


class Pictures:
    """N captions, each with a seed of its own: whatever text is rendered for one starts from its noise."""

    def __init__(self, captions: Sequence[str], *, first_seed: int) -> None:
        self.captions, self.first = list(captions), first_seed
        self.policy = load_policy("shapes")
        evaluator = rewards.load("evaluator", backend="oracle")
        assert isinstance(evaluator, AlignEvaluator), "the oracle is a backend of it"
        self.evaluator = evaluator
        self.known: dict[tuple[int, str, int], list[float]] = {}

    def matches(self, texts: Sequence[str], *, draw: int = 0) -> list[list[float]]:
        """A text for each caption -> whether its picture shows each key point of the caption.

        draw: which of a caption's seeds.
        """
        asked = [(place, text, draw) for place, text in enumerate(texts)]
        new = [one for one in dict.fromkeys(asked) if one not in self.known]
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            captions = [self.captions[place] for place, _, _ in part]
            with torch.no_grad():
                images = generate(
                    self.policy,
                    [text for _, text, _ in part],
                    [self.first + place + draw * len(self.captions) for place, _, draw in part],
                    num_steps=STEPS,
                    guidance=GUIDANCE,
                    batch_size=BATCH,
                )
                found = self.evaluator.judge(images, captions, [shapes_points(text) for text in captions])
            for one, judged in zip(part, found, strict=True):
                self.known[one] = [float(verdict.match or 0.0) for verdict in judged.verdicts]
        return [self.known[one] for one in asked]
