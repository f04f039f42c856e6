"""Score the images of a manifest with one reward, as a journal that a killed run continues."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewards import Reward
from t2ialign.data.images import open_rgb
from t2ialign.evaluation import manifest
from t2ialign.evaluation.manifest import Rendered

Key = tuple[str, str, int | None]
Score = dict[str, Any]
"""{"file", "prompt", "seed", "reward", "score"}, with "error" in place of "score" for a broken image."""


@torch.no_grad()
def score_manifest(
    reward: Reward,
    name: str,
    rows: Sequence[Rendered],
    journal: Path,
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    progress: Callable[[int], object] | None = None,
) -> list[Score]:
    """Score every row against its prompt -> one dict a row, in order; each batch goes to `journal` at once.

    Rows already scored there by the reward of this `name` are kept, and broken ones are tried again. An image
    that cannot be read, or whose score is not finite, becomes an error and never a number. `device` is where
    the reward lies. `progress` is called with how many rows were just finished. Raises ValueError if the
    journal is of another reward.
    """
    done = _done(journal, name)
    if journal.exists():
        manifest.rewrite(journal, done.values())
    missing = [row for row in rows if _key(row) not in done]
    if progress is not None:
        progress(len(rows) - len(missing))
    for batch in _batches(missing, batch_size):
        scored = _score(reward, name, batch, torch.device(device))
        manifest.append(journal, scored)
        done |= {_key(row): score for (row, _), score in zip(batch, scored, strict=True)}
        if progress is not None:
            progress(len(batch))
    return [done[_key(row)] for row in rows]


def read_image(path: Path) -> Tensor:
    """One picture -> (3, H, W) fp32 in [0, 1]. Raises ValueError if it cannot be read whole."""
    return torch.from_numpy(np.asarray(open_rgb(path), np.float32) / 255).permute(2, 0, 1)


def _batches(rows: Sequence[Rendered], size: int) -> Iterator[list[tuple[Rendered, Tensor | str]]]:
    """Rows with their image, or the reason why there is none; images of one batch have one size."""
    batch: list[tuple[Rendered, Tensor | str]] = []
    shape: torch.Size | None = None
    for row in rows:
        try:
            image: Tensor | str = read_image(row.path)
        except ValueError as error:
            image = str(error)
        new = image.shape if isinstance(image, Tensor) else shape
        if batch and (len(batch) == size or (shape is not None and new != shape)):
            yield batch
            batch = []
        shape = new
        batch.append((row, image))
    if batch:
        yield batch


def _score(
    reward: Reward, name: str, batch: Sequence[tuple[Rendered, Tensor | str]], device: torch.device
) -> list[Score]:
    whole = [(row.prompt, image) for row, image in batch if isinstance(image, Tensor)]
    values: Iterator[float] = iter(())
    if whole:
        images = torch.stack([image for _, image in whole]).to(device)
        values = iter(reward(images, [prompt for prompt, _ in whole]).double().tolist())
    return [
        _row(row, name) | ({"error": image} if isinstance(image, str) else _value(next(values), row))
        for row, image in batch
    ]


def _value(score: float, row: Rendered) -> Score:
    return {"score": score} if math.isfinite(score) else {"error": f"{row.path}: the score is {score}"}


def _row(row: Rendered, name: str) -> Score:
    return {"file": row.file, "prompt": row.prompt, "seed": row.seed, "reward": name}


def _key(row: Rendered) -> Key:
    return row.file, row.prompt, row.seed


def _done(journal: Path, name: str) -> dict[Key, Score]:
    rows = manifest.journal(journal)
    if others := {str(row.get("reward")) for row in rows} - {name}:
        raise ValueError(
            f"got scores of {', '.join(sorted(others))} in {journal}; expected {name}; choose an --output"
        )
    return {(row["file"], row["prompt"], row["seed"]): row for row in rows if "score" in row}
