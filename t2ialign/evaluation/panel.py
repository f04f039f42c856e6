"""Several judges of the same images, and the one whose image embeddings tell images apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import rewards
from rewards import Reward, TwoTower
from rewards.checks import check_scores
from rewards.combine import Combined
from t2ialign.evaluation.monitor_journal import TRAINED

Trained = tuple[str, Reward]
"""The reward that a trainer climbs, by its name."""


class Panel:
    """The held-out rewards, and under `TRAINED` the trained one; `eye` names the held-out one that embeds.

    Raises ValueError for a held-out reward that is trained on, alone or as part of a combination, and like
    `rewards.load_all`.
    """

    def __init__(self, names: Sequence[str], trained: Trained | None, device: torch.device) -> None:
        check_heldout(names, trained)
        heldout = rewards.load_all(names)
        for reward in heldout.values():
            reward.to(device).requires_grad_(False).eval()
        if trained is not None:
            share_towers(trained[1], heldout)
        self.rewards = {**({TRAINED: trained[1]} if trained else {}), **heldout}
        self.device = device
        self.eye = next((name for name, reward in heldout.items() if isinstance(reward, TwoTower)), None)

    @torch.no_grad()
    def score(self, images: Tensor, prompts: list[str]) -> tuple[dict[str, Tensor], Tensor | None]:
        """images (B, 3, H, W) in [0, 1], B prompts -> {name: (B,)}, and unit embeddings (B, D).

        The embeddings are the eye's, from the one forward that its score takes; without an eye they are None.
        Raises ValueError like a call of a reward does.
        """
        images = images.to(self.device)
        if self.eye is None:
            return rewards.score_all(self.rewards, images, prompts), None
        eye, embedded = self.rewards[self.eye], self.embed(images)
        assert isinstance(eye, TwoTower), "only a two-tower reward is an eye"
        scores = {
            name: check_scores(reward, reward.score_embedded(embedded, prompts), len(prompts))
            for name, reward in self.rewards.items()
            if isinstance(reward, TwoTower) and (reward.tower, reward.geometry) == (eye.tower, eye.geometry)
        }
        others = {name: reward for name, reward in self.rewards.items() if name not in scores}
        scores |= rewards.score_all(others, images, prompts)
        return {name: scores[name] for name in self.rewards}, embedded

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [0, 1] -> the eye's unit embeddings (B, D)."""
        eye = self.rewards[self.eye or ""]
        assert isinstance(eye, TwoTower), "only a two-tower reward is an eye"
        return eye.encode_image(eye.preprocess(images.to(self.device)))


def check_heldout(names: Sequence[str], trained: Trained | None) -> None:
    """Raises ValueError for a name that is trained on, alone or as a member of a combination."""
    if trained is None:
        return
    parts = (part for part in trained[1].modules() if isinstance(part, Combined))
    names_trained_on = {trained[0], *(name for part in parts for name in part.names)}
    if both := [name for name in names if name in names_trained_on]:
        raise ValueError(
            f"got monitor reward {both[0]}, which is trained on; expected rewards that training never sees; "
            "choose others"
        )


def share_towers(trained: Reward, heldout: Mapping[str, Reward]) -> None:
    """Let the held-out rewards use the trained one's tower where it has the same weights, bit for bit.

    The file it came from is not enough: a fine-tuned scorer has a tower of its own from the same file.
    """
    for reward in heldout.values():
        if isinstance(trained, TwoTower) and isinstance(reward, TwoTower):
            ours, theirs = reward.tower.state_dict(), trained.tower.state_dict()
            if reward.tower.key == trained.tower.key and all(
                torch.equal(tensor, theirs[name]) for name, tensor in ours.items()
            ):
                reward.tower = trained.tower
