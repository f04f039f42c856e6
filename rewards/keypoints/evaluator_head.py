"""A light judge of key points: a small network on the frozen embeddings of a CLIP, no language model.

It knows the kinds it was fitted on (`evaluator_fit.py`) and sees no more than one embedding of the image:
fine counts and layouts pass through it poorly. A folder holds head.safetensors and head.json, which says on
which reward's tower it stands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewards import tensor_files
from rewards.base import Reward
from rewards.keypoints.taxonomy import KeyPoint, kinds
from rewards.keypoints.verdicts import Checker, PromptPoint, Verdict
from rewards.keys import load_exactly
from rewards.permissions import share
from rewards.towers.two_tower import Tower, TwoTower
from rewards.trained import recorded_base
from rewards.weights import find, load_state

WEIGHTS, ABOUT = "head.safetensors", "head.json"
FORMAT = 1
KIND_DIM = 16
"""Width of a kind's own embedding."""
DROPOUT = 0.2


@dataclass(frozen=True)
class Features:
    """N pairs of image and key point: embeddings (N, D) of image and description, and kinds (N,) long."""

    image: Tensor
    text: Tensor
    kind: Tensor
    """The place of the kind in `keypoints.kinds()`."""

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, rows: Tensor) -> Features:
        return Features(self.image[rows], self.text[rows], self.kind[rows])


class MatchHead(nn.Module):
    """Log-odds that the image shows the key point, from both embeddings, their product, and the kind."""

    def __init__(self, dim: int, *, width: int = 256) -> None:
        super().__init__()
        self.kind = nn.Embedding(len(kinds()), KIND_DIM)
        self.layers = nn.Sequential(
            nn.Dropout(DROPOUT),
            nn.Linear(3 * dim + KIND_DIM, width),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, 1),
        )
        self.register_buffer("mean", torch.zeros(2, dim))
        self.register_buffer("deviation", torch.ones(2, dim))
        self.mean: Tensor
        self.deviation: Tensor

    def scale_to(self, features: Features) -> None:
        """Take the mean and deviation of the embeddings it will see, image and text each on its own."""
        for row, seen in enumerate((features.image, features.text)):
            self.mean[row] = seen.mean(0)
            self.deviation[row] = seen.std(0, correction=0).clamp(min=1e-4)

    def forward(self, features: Features) -> Tensor:
        """N pairs -> log-odds (N,)"""
        image = (features.image - self.mean[0]) / self.deviation[0]
        text = (features.text - self.mean[1]) / self.deviation[1]
        joined = torch.cat([image, text, image * text, self.kind(features.kind)], dim=-1)
        odds: Tensor = self.layers(joined).squeeze(-1)
        return odds


class HeadChecker(Checker):
    """A fitted head on the tower of a two-tower reward; each image is encoded once."""

    def __init__(self, base: TwoTower, head: MatchHead) -> None:
        super().__init__()
        self.base, self.head = base, head.eval()

    @torch.no_grad()
    def check(self, images: Tensor, pairs: Sequence[Sequence[PromptPoint]]) -> list[list[Verdict]]:
        """images (B, 3, H, W) in [0, 1] -> verdicts in (0, 1), without reasons."""
        points = [[point for _, point in pairs_of_image] for pairs_of_image in pairs]
        left = iter(self.head(features(self.base, images, points)).sigmoid().tolist())
        return [[Verdict(point, next(left)) for point in points_of_image] for points_of_image in points]


@torch.no_grad()
def features(base: TwoTower, images: Tensor, points: Sequence[Sequence[KeyPoint]]) -> Features:
    """images (B, 3, H, W) in [0, 1], for each its key points -> the pairs, in order; no gradient."""
    return paired(base, base.encode_image(base.preprocess(images)), points)


@torch.no_grad()
def paired(base: TwoTower, image: Tensor, points: Sequence[Sequence[KeyPoint]]) -> Features:
    """Embeddings of B images (B, D), for each its key points -> the pairs, in order; no gradient."""
    place = {kind: number for number, kind in enumerate(kinds())}
    rows = [row for row, points_of_image in enumerate(points) for _ in points_of_image]
    flat = [point for points_of_image in points for point in points_of_image]
    kind = torch.tensor([place[point.kind] for point in flat], dtype=torch.long, device=image.device)
    if not flat:
        return Features(image[:0], image[:0], kind)
    return Features(image[rows], base.encode_text([point.description for point in flat]), kind)


def save(
    head: MatchHead, folder: Path | str, *, reward: str, options: Mapping[str, Any] | None = None
) -> Path:
    """Write both files, each whole or not at all -> the file of weights.

    `reward` and its `options` are what `rewards.load` takes for the two-tower scorer it was fitted on.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous().clone() for name, value in head.state_dict().items()}
    scratch = folder / f".{WEIGHTS}.part"
    tensor_files.write(state, scratch, {"format": "pt"})
    share(scratch).replace(folder / WEIGHTS)
    about = {"format": FORMAT, "reward": reward, "options": dict(options or {}), "kinds": list(kinds())}
    scratch = folder / f".{ABOUT}.part"
    scratch.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    scratch.replace(folder / ABOUT)
    return folder / WEIGHTS


def load(
    folder: Path | str, *, reward: str | None = None, towers: dict[str, Tower] | None = None
) -> HeadChecker:
    """What `save` wrote, on the tower of its reward; an equal one among `towers` is shared.

    `reward` is its name as you write it, which code of yours needs: none is run because head.json names it.
    Raises ValueError for another folder or format, other kinds, weights that do not fit, and a reward without
    two towers.
    """
    from rewards import load as load_reward
    from rewards import user_code

    file = Path(folder) / ABOUT
    if not file.is_file():
        raise ValueError(f"got {folder} without {ABOUT}; expected what evaluator_head.save wrote; check it")
    about = recorded_base(file)
    if about.get("format") != FORMAT or about.get("kinds") != list(kinds()):
        raise ValueError(
            f"got {file} of format {about.get('format')} and {len(about.get('kinds', []))} kinds; expected "
            f"{FORMAT} and those of keypoints.json; fit the head again"
        )
    state = load_state(find(folder, WEIGHTS))
    with user_code.recorded(file, reward):
        base = load_reward(reward or about["reward"], **{**about["options"], "towers": towers})
    if "mean" not in state or "layers.1.bias" not in state:
        raise ValueError(f"got {folder} with other weights than a head's; expected them; fit the head again")
    head = MatchHead(state["mean"].shape[-1], width=len(state["layers.1.bias"]))
    load_exactly(head, state, folder)
    return HeadChecker(two_tower(base), head)


def two_tower(base: Reward) -> TwoTower:
    """The scorer itself. Raises ValueError for one that has no two towers."""
    if not isinstance(base, TwoTower):
        raise ValueError(f"got {type(base).__name__}; expected a two-tower scorer, such as CLIPScore's")
    return base
