"""Rewards and a trainer for the tests of the monitor."""

import torch
from torch import Tensor

from rewards import Reward
from t2ialign.evaluation.panel import Trained
from tests.training import toy
from tests.training.brightness import Brightness


class Darkness(Brightness):
    """Falls wherever the brightness rises."""

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        return -super().score(images, prompts)


class Broken(Reward):
    """No number for the second image of a batch."""

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        scores = images.mean((1, 2, 3))
        scores[1] = torch.nan
        return scores


class Climber(toy.Trainer):
    """The toy, as if it climbed a reward."""

    climbs: Trained = ("tests.training.brightness", Brightness())

    @property
    def trained_reward(self) -> Trained:
        return self.climbs
