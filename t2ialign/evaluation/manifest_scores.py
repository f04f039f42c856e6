"""Score the images of a manifest with one reward, as a journal that a killed run continues."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rewards import Reward
from rewards.renamed import same
from rewards.scores import MAX_BATCH_PIXELS
from t2ialign.data.images import open_rgb
from t2ialign.io import jsonl, naming
from t2ialign.io.manifest import Rendered
from t2ialign.io.messages import one_line

Key = tuple[str, str, int | None, int | None, int | None]
Score = dict[str, Any]
"""{"file", "prompt", "seed", "bytes", "mtime_ns", "reward", "score"}; "error" if broken, not "score"."""

KEY = ("file", "prompt", "seed", "bytes", "mtime_ns")
"""The identity to which a score belongs: another image of the same name has another size or date."""


class _Item(NamedTuple):
    row: Rendered
    key: Key
    image: Tensor | str
    """The image, or the reason why there is none."""


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

    Rows already scored there by the reward of this `name` are kept if their image is still the same; broken
    ones are tried again, and scores of anything else are dropped. An image that cannot be read, whose score
    is not finite, or on which the reward fails becomes an error and never a number. `device` is where the
    reward lies. `progress` is called with how many rows were just finished. Raises ValueError if the journal
    is of another reward, and what the reward raises if it fails on all.
    """
    keys = [_key(row) for row in rows]
    done = _done(journal, name, keys)
    if journal.exists():
        jsonl.rewrite(journal, done.values())
    missing = [(row, key) for row, key in zip(rows, keys, strict=True) if key not in done]
    if progress is not None:
        progress(len(rows) - len(missing))
    refused: list[ValueError] = []
    for batch in _batches(missing, batch_size):
        scored = _score(reward, name, batch, torch.device(device), refused)
        jsonl.append(journal, scored)
        done |= {item.key: score for item, score in zip(batch, scored, strict=True)}
        if progress is not None:
            progress(len(batch))
    if refused and not any("score" in score for score in done.values()):
        raise refused[0]
    return [done[key] for key in keys]


def read_image(path: Path) -> Tensor:
    """One image -> (3, H, W) fp32 in [0, 1]. Raises ValueError if it cannot be read whole."""
    pixels = torch.from_numpy(np.asarray(open_rgb(path), np.float32))
    return pixels.div_(255).permute(2, 0, 1)


def _batches(rows: Sequence[tuple[Rendered, Key]], size: int) -> Iterator[list[_Item]]:
    """Rows with their image, or the reason why there is none; images of one batch have one size.

    They have at most `MAX_BATCH_PIXELS` pixels, or are one.
    """
    batch: list[_Item] = []
    shape: torch.Size | None = None
    for row, key in rows:
        try:
            image: Tensor | str = read_image(row.path)
        except ValueError as error:
            image = str(error)
        new = image.shape if isinstance(image, Tensor) else shape
        most = size if new is None else min(size, max(1, MAX_BATCH_PIXELS // new[1:].numel()))
        if batch and (len(batch) >= most or (shape is not None and new != shape)):
            yield batch
            batch = []
        shape = new
        batch.append(_Item(row, key, image))
    if batch:
        yield batch


def _score(
    reward: Reward, name: str, batch: Sequence[_Item], device: torch.device, refused: list[ValueError]
) -> list[Score]:
    whole = [(row.prompt, image) for row, _, image in batch if isinstance(image, Tensor)]
    scores = _values(reward, whole, device)
    refused += [value for value in scores if isinstance(value, ValueError)]
    values = iter(scores)
    return [
        dict(zip(KEY, key, strict=True))
        | {"reward": name}
        | ({"error": image} if isinstance(image, str) else _value(next(values), row))
        for row, key, image in batch
    ]


def _values(
    reward: Reward, whole: Sequence[tuple[str, Tensor]], device: torch.device
) -> list[float | ValueError]:
    """Scores of (prompt, image) together; if that fails, one by one, with the error where there is none."""
    if not whole:
        return []
    prompts, images = zip(*whole, strict=True)
    try:
        values: list[float | ValueError] = [
            *reward(torch.stack(images).to(device), list(prompts)).detach().cpu().double().tolist()
        ]
    except ValueError as error:
        if len(whole) == 1:
            return [error]
        return [value for pair in whole for value in _values(reward, [pair], device)]
    return values


def _value(score: float | ValueError, row: Rendered) -> Score:
    if isinstance(score, ValueError):
        return {"error": f"{row.path}: {one_line(str(score))}"}
    return {"score": score} if math.isfinite(score) else {"error": f"{row.path}: the score is {score}"}


def _key(row: Rendered) -> Key:
    try:
        stat = row.path.stat()
    except OSError:  # reading it will say what is wrong
        return row.file, row.prompt, row.seed, None, None
    return row.file, row.prompt, row.seed, stat.st_size, stat.st_mtime_ns


def _done(journal: Path, name: str, wanted: Sequence[Key]) -> dict[Key, Score]:
    rows = [{**row, "reward": name} if same(row.get("reward"), name) else row for row in jsonl.read(journal)]
    if others := {str(row.get("reward")) for row in rows} - {name}:
        raise ValueError(
            f"got scores of {', '.join(sorted(others))} in {journal}; expected {name}; choose an "
            f"{naming.name('output')}"
        )
    known = set(wanted)
    good = (row for row in rows if isinstance(row.get("score"), float | int) and math.isfinite(row["score"]))
    keys = ((tuple(row.get(part) for part in KEY), row) for row in good)
    return {key: row for key, row in keys if _is_plain(key) and key in known}


def _is_plain(key: Sequence[object]) -> bool:
    """Whether it can be a key of ours: a damaged row may hold a list in its place."""
    return all(part is None or isinstance(part, str | int) for part in key)
