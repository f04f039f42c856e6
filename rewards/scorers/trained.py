"""A trained reward: the weights of a `t2ialign train reward` folder, laid over the reward they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rewards import user_code
from rewards.base import Reward
from rewards.loading import load
from rewards.trained import ABOUT, WEIGHTS, lay_over, read_about, read_tensors
from rewards.weights import find

NAMES: dict[str, dict[str, str]] = {"trained": {}}
TABLE = {
    "trained": (
        "the output folder of `t2ialign train reward` | as its base | as its base | as its base | "
        "as its base | base and data"
    ),
}


def build(
    weights: str | Path | None = None, *, sha256: str | None = None, reward: str | None = None, **options: Any
) -> Reward:
    """The trained reward in the folder `weights`; `sha256` pins its reward.safetensors.

    Its base is loaded as it was for training, but that `options` win; where the base's own weights moved,
    correct reward.json. `reward` is its name as you write it, which code of yours or of an installed package
    needs: none such is run because reward.json names it. Towers are never shared, since this one's weights
    are its own. Raises ValueError for a folder of another kind, or weights that do not fit the base.
    """
    if weights is None:
        raise ValueError("got no weights; expected the output folder of t2ialign train reward; pass weights=")
    about = read_about(weights)
    if sha256 is not None:
        find(weights, WEIGHTS, sha256=sha256)
    name, options = reward or about["reward"], {**about["options"], **options}
    with user_code.recorded(Path(weights) / ABOUT, reward):
        base: Reward = load(name, **options)
    lay_over(base, read_tensors(weights), weights)
    return base
