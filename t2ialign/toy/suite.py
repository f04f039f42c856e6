"""Measures a model in the toy world: sample captions, let the oracle judge, count."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewards.toy.oracle import ToyOracle
from rewards.toy.vision import read_things
from t2ialign.evaluation.statistics import Estimate, bootstrap_ci, by_category
from t2ialign.models.base import Policy
from t2ialign.models.generate import generate

STEPS, GUIDANCE = 10, 4.0  # how the toy model is sampled wherever a figure of it is stated


@dataclass(frozen=True)
class Outcome:
    """The verdicts of the oracle, an image a row: row i was drawn from prompts[i] and seeds[i]."""

    prompts: list[str]
    seeds: list[int]
    images: Tensor
    passed: list[float]

    def accuracy(self) -> Estimate:
        """Share of passing images with its interval, bootstrapped by prompt."""
        return bootstrap_ci(self.passed, self.prompts)

    def by_category(self) -> dict[str, Estimate]:
        """`accuracy` within each of the six caption categories."""
        return by_category(self.passed, self.prompts, self._categories(self.prompts))

    def any_of_prompt(self) -> dict[str, Estimate]:
        """Share of the prompts of each category of which at least one image passes: pass@n of n images."""
        passed: dict[str, float] = {}
        for prompt, value in zip(self.prompts, self.passed, strict=True):
            passed[prompt] = max(value, passed.get(prompt, 0.0))
        return by_category(list(passed.values()), list(passed), self._categories(list(passed)))

    def unreadable(self) -> float:
        """Share of the things in all images whose shape or colour the oracle cannot tell."""
        things = [
            thing
            for image in self.images.permute(0, 2, 3, 1).double().numpy()
            for thing in read_things(image)
        ]
        return sum(thing.shape is None or thing.colour is None for thing in things) / max(1, len(things))

    @staticmethod
    def _categories(prompts: Sequence[str]) -> list[str | None]:
        oracle = ToyOracle()
        return [oracle.category(prompt) for prompt in prompts]


def ask(
    policy: Policy,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    guidance_scale: float = GUIDANCE,
    progress: Callable[[int], object] | None = None,
) -> Outcome:
    """Sample one image per (prompt, seed) with `STEPS` DDIM steps and let the oracle judge it."""
    images = generate(
        policy,
        prompts,
        seeds,
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
        batch_size=128,
        progress=progress,
    )
    return Outcome(list(prompts), list(seeds), images, ToyOracle()(images, list(prompts)).tolist())


@torch.no_grad()
def round_trip(policy: Policy, images: Tensor, batch_size: int = 500) -> Tensor:
    """(N, 3, 32, 32) in [0, 1] -> the same after encoding to the mean latent and decoding."""
    return torch.cat([policy.decode(policy.encode_images(chunk)[0]) for chunk in images.split(batch_size)])
