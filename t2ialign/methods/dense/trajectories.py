"""Scored sampling paths on disk: every state once, so that step i is (states[i], states[i + 1]).

A round's folder is filled a chunk of prompts at a time and renamed when full; a kill loses one chunk.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from t2ialign.io.hashes import digest, fault, note, noted

Array = np.ndarray
CHUNK = 2**24
"""Bytes written at a time where the system reserves no disk space by itself."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a round."""

    prompts: int
    """G: groups of paths of one prompt."""
    rollouts: int
    """M: paths sampled per group."""
    keep: int
    """N: paths stored per group, at evenly spaced ranks, best and worst included."""
    states: tuple[int, ...]
    """(T + 1, C, h, w)"""
    dtype: str
    """The dtype of the stored states."""


@dataclass(frozen=True)
class Store:
    """The paths of one round, memory-mapped."""

    states: Array
    """(G, N, T + 1, C, h, w), noise first"""
    all_scores: Array
    """(G, M) fp32, the rewards of every sampled path"""
    stored: Array
    """(G, N), which of the M were stored, worst first"""

    @property
    def scores(self) -> Array:
        """(G, N) rewards of the stored paths."""
        return np.take_along_axis(np.asarray(self.all_scores), np.asarray(self.stored), axis=1)


def round_folder(root: Path, number: int) -> Path:
    """The folder of a finished round."""
    return root / f"round-{number:04d}"


def open_store(folder: Path, mode: str = "r") -> Store:
    """Map a round's arrays."""
    return Store(*(np.load(folder / f"{name}.npy", mmap_mode=mode) for name in NAMES))  # type: ignore[arg-type]


NAMES = ("states", "scores", "kept")


def seal(folder: Path) -> None:
    """Keep the hashes of a round that is full."""
    for name in NAMES:
        note(folder, f"{name}.npy", digest(folder / f"{name}.npy"))


def check(folder: Path) -> None:
    """Raises ValueError for a round that is gone, or is not as it was sealed."""
    known = noted(folder) or {}
    for file in (folder / f"{name}.npy" for name in NAMES):
        if wrong := fault(file, known.get(file.name)):
            raise ValueError(
                f"got no whole {folder} ({wrong}); expected what the run was training on; restore it, or "
                "start anew in another output"
            )


def collect(
    folder: Path,
    shape: Shape,
    chunks: Iterable[range],
    paths: Callable[[range], tuple[Tensor, Tensor]],
    *,
    stopping: Callable[[], bool],
) -> bool:
    """Fill `folder` with this process's chunks of groups -> False if it was told to stop first.

    paths: groups -> states (g, M, T + 1, C, h, w) and rewards (g, M). Raises FloatingPointError for a reward
    that is not finite, OSError when the disk is full.
    """
    store = open_store(folder, "r+")
    for groups in chunks:
        span = slice(groups.start, groups.stop)
        if np.isfinite(store.all_scores[span]).all():  # done before a kill
            continue
        if stopping():
            return False
        states, rewards = paths(groups)
        if not torch.isfinite(rewards).all():
            raise FloatingPointError(f"got a reward that is not finite for prompts {span}; expected numbers")
        ranks = spaced_ranks(rewards, shape.keep)
        store.states[span] = states[torch.arange(len(ranks))[:, None], ranks].numpy().astype(shape.dtype)
        store.stored[span] = ranks.numpy()
        store.states.flush()  # type: ignore[attr-defined]
        store.all_scores[span] = rewards.numpy()  # last: it says that the chunk is done
    return True


def create(folder: Path, shape: Shape) -> None:
    """Make a round's empty arrays, unless they are there. Raises OSError if the disk cannot hold them."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {
        "states": ((shape.prompts, shape.keep, *shape.states), shape.dtype),
        "kept": ((shape.prompts, shape.keep), "int64"),
        "scores": ((shape.prompts, shape.rollouts), "float32"),
    }
    for name, (size, dtype) in sizes.items():
        file = folder / f"{name}.npy"
        if file.exists():
            continue
        part = file.with_suffix(".part")
        array = _reserve(part, size, dtype)
        if name == "scores":  # NaN is "not sampled yet"; the states, gigabytes of them, are zeros as reserved
            array[...] = math.nan
        array.flush()
        del array  # Windows renames no mapped file
        part.rename(file)


def spaced_ranks(scores: Tensor, keep: int) -> Tensor:
    """The ranks to store of M paths, (g, M) -> (g, keep), worst first: evenly spaced, ends included."""
    ranks = torch.linspace(0, scores.shape[1] - 1, keep).round().long()
    return scores.argsort(dim=1, stable=True)[:, ranks]


def _reserve(file: Path, size: tuple[int, ...], dtype: str) -> np.memmap:
    """A new mapped array that has its disk space: a mapped write to a full disk kills the process."""
    try:
        array = open_memmap(file, mode="w+", dtype=dtype, shape=size)
        with file.open("r+b") as opened:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
            else:
                _write_zeros(opened, array.offset, file.stat().st_size)
    except OSError as error:
        file.unlink(missing_ok=True)
        gigabytes = math.prod(size) * np.dtype(dtype).itemsize / 1e9
        raise OSError(
            f"got {error.strerror!r} for {gigabytes:.2f} GB of trajectories in {file.parent}; expected "
            "that much free disk; free some, or lower collect_prompts or keep, and add resume=latest"
        ) from error
    return array


def _write_zeros(opened: BinaryIO, start: int, end: int) -> None:
    opened.seek(start)
    for first in range(start, end, CHUNK):
        opened.write(bytes(min(CHUNK, end - first)))
