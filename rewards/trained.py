"""Folders that `t2ialign train reward` writes: trained weights, to be laid over the reward they came from.

A folder holds reward.safetensors (every trained weight whole, LoRAs merged) and reward.json (which reward it
is laid over, loaded with which options; at which scale its scores are log-odds; how good it is).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewards.permissions import share

if TYPE_CHECKING:
    from torch import Tensor

    from rewards.base import Reward

WEIGHTS, ABOUT = "reward.safetensors", "reward.json"
FORMAT = 1


def save(folder: Path | str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    """Write both files, each whole or not at all -> the file of weights.

    tensors: by the names of the reward's own state dict. about: "reward" and "options" as for `rewards.load`
    of the base, and anything else worth knowing, as plain JSON. Raises OSError where the disk refuses.
    """
    from rewards import tensor_files

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    scratch = folder / f".{WEIGHTS}.part"
    tensor_files.write(rows, scratch, {"format": "pt"})
    share(scratch).replace(folder / WEIGHTS)
    text = json.dumps({"format": FORMAT, **about}, indent=1, ensure_ascii=False)
    scratch = folder / f".{ABOUT}.part"
    scratch.write_text(text + "\n", encoding="utf-8")
    scratch.replace(folder / ABOUT)
    return folder / WEIGHTS


def is_trained(source: object) -> bool:
    """Whether it names a folder that `save` wrote."""
    return isinstance(source, str | Path) and (Path(source) / ABOUT).is_file()


def read_about(folder: Path | str) -> dict[str, Any]:
    """Read reward.json. Raises ValueError for a folder without it, of another format, or damaged."""
    file = Path(folder) / ABOUT
    if not file.is_file():
        raise ValueError(f"got {folder} without {ABOUT}; expected the output of t2ialign train reward")
    about = recorded_base(file)
    if about.get("format") != FORMAT:
        raise ValueError(
            f"got format {about.get('format')} in {file}; expected {FORMAT}; use the version that wrote it"
        )
    return about


def recorded_base(file: Path) -> dict[str, Any]:
    """The JSON of a file that names a reward and its options. Raises ValueError for one that does not."""
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"got {file}, which is not JSON; expected it as it was written; copy it again"
        ) from error
    fits = isinstance(about, dict) and isinstance(about.get("reward"), str)
    if not fits or not isinstance(about.get("options"), dict):
        raise ValueError(f"got {file} without a reward's name and its options; expected both; copy it again")
    return dict(about)


def read_tensors(folder: Path | str) -> dict[str, Tensor]:
    """The trained weights, by the names of the reward's state dict. Raises ValueError if absent."""
    from rewards.weights import find, load_state

    return load_state(find(folder, WEIGHTS))


def lay_over(reward: Reward, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Put trained weights into a reward, in place. Raises ValueError if a name or shape does not fit."""
    weights = reward.state_dict()
    odd = [
        name for name, tensor in tensors.items() if name not in weights or weights[name].shape != tensor.shape
    ]
    if odd:
        raise ValueError(
            f"got {len(odd)} weights in {source} that do not fit {type(reward).__name__} (first: {odd[0]}); "
            "expected those of the reward it was trained from; check reward.json"
        )
    reward.load_state_dict(dict(tensors), strict=False)
