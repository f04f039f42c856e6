"""The toy world's ground truth as a reward: 1 where the image shows what the caption says, else 0."""

from functools import lru_cache

import torch
from torch import Tensor

from rewards.base import Reward
from rewards.toy.captions import Caption, judge, parse
from rewards.toy.vision import check_canvas, read_things

NAMES: dict[str, dict[str, str]] = {"toy-oracle": {}}
TABLE = {
    "toy-oracle": "none | all | a caption of the toy world | 1 or 0 | no | no weights",
}

_parse = lru_cache(maxsize=4096)(parse)


class ToyOracle(Reward):
    """Exact pass/fail of images of the toy world; not differentiable."""

    differentiable = False

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B captions of the toy world -> (B,), 1.0 pass or 0.0 fail.

        Raises ValueError for a prompt outside the world's grammar.
        """
        passed = [float(all(atoms.values())) for atoms in self.atoms(images, prompts)]
        return torch.tensor(passed, device=images.device)

    def atoms(self, images: Tensor, prompts: list[str]) -> list[dict[str, bool]]:
        """Pass or fail of every atom of each caption, e.g. {"red circle": True, "nothing else": False}."""
        captions: list[Caption] = [_parse(prompt) for prompt in prompts]
        check_canvas(*images.shape[-2:])
        pixels = images.detach().permute(0, 2, 3, 1).double().cpu().numpy()
        return [judge(caption, read_things(image)) for caption, image in zip(captions, pixels, strict=True)]

    def category(self, prompt: str) -> str:
        """attribute, count, pair, relation, negation or comparison."""
        return _parse(prompt).category


def build() -> ToyOracle:
    """The oracle; it has no weights to load."""
    return ToyOracle()
