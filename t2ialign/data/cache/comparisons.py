"""Comparisons for training a scorer: each distinct image prepared once, read back a batch at a time.

Layout of a cache folder: images-*.safetensors (pixels (N, 3, S, S), id, the image's key), prompts.json,
index.safetensors (where both images of each comparison lie, prompt, weight, preference), and last of all
cache.json: a folder without it is no cache.
"""

from __future__ import annotations

import copy
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from t2ialign.data.cache.claim import claimed
from t2ialign.data.cache.keys import image_key
from t2ialign.data.cache.ledger import Comparisons, Known, finish_comparisons
from t2ialign.data.cache.shards import ShardReader, ShardWriter
from t2ialign.data.cache.stored import held_out, open_manifest, read_index, shard_hashes
from t2ialign.data.images import ImageSource, open_rgb
from t2ialign.data.pairs import PairRecord
from t2ialign.data.room import Room
from t2ialign.data.skipped import Skipped
from t2ialign.progress import Progress

WINDOW = 128
"""The number of images that are decoded ahead."""
SIDES = ("win", "lose")

Prepare = Callable[[Image.Image], Tensor]
"""An image -> what is stored of it, the same shape for every image."""


@dataclass(frozen=True)
class Compared:
    """A batch of comparisons."""

    win: Tensor
    """(B, 3, S, S) the preferred image, as stored."""
    lose: Tensor
    """(B, 3, S, S) the other one."""
    prompts: list[str]
    """The B prompts."""
    preference: Tensor
    """(B,) the winner's share of the labels, in [1/2, 1]."""
    weight: Tensor
    """(B,) the weight of the comparison in the loss; 1 on average over the part it is of."""

    def to(self, device: torch.device | str) -> Compared:
        """The same batch on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("win", "lose", "preference", "weight")}
        return replace(self, **moved)


class ComparisonCache:
    """A finished cache, or a part of one; comparisons are numbered from 0 in the order they were read."""

    def __init__(self, folder: Path) -> None:
        """Open a cache of `build_comparisons`. Raises ValueError if unfinished, DamagedCache if damaged."""
        self.folder = Path(folder)
        manifest = open_manifest(self.folder)
        if manifest is None:
            raise ValueError(f"got {folder}, which is no finished cache; build it again")
        self.prompts, self._index = read_index(self.folder)
        self._reader = ShardReader(self.folder, shard_hashes(manifest))

    def __len__(self) -> int:
        return len(self._index["prompt"])

    def prompt(self, index: int) -> str:
        """The prompt of one comparison."""
        return self.prompts[self._index["prompt"][index]]

    def split(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """(train, held out): `fraction` of the prompts are held out with all their comparisons.

        Raises ValueError if none is left to train on.
        """
        held = held_out(self._index["prompt"], self.prompts, fraction, seed)
        return self._part(~held), self._part(held)

    def even(self) -> Self:
        """The same with weights that give every prompt one voice, 1 / its comparisons, and keep the mean."""
        part, prompt = copy.copy(self), self._index["prompt"]
        weight = self._index["weight"] / np.bincount(prompt, weights=self._index["weight"])[prompt]
        mean = self._index["weight"].mean() / weight.mean()
        part._index = {**self._index, "weight": (weight * mean).astype(np.float32)}
        return part

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """All comparisons, shuffled: a function of seed and epoch."""
        return np.random.default_rng((seed, epoch)).permutation(len(self))

    def batch(self, indices: Sequence[int] | np.ndarray) -> Compared:
        """Comparisons by their numbers, on CPU."""
        index, rows = self._index, np.asarray(indices)
        win, lose = (
            torch.stack([self._image(shard, offset) for shard, offset in zip(*place, strict=True)])
            for place in ((index[f"{side}_shard"][rows], index[f"{side}_offset"][rows]) for side in SIDES)
        )
        preference, weight = (torch.from_numpy(index[name][rows]) for name in ("preference", "weight"))
        return Compared(win, lose, [self.prompt(int(i)) for i in rows], preference, weight)

    def _image(self, shard: int, offset: int) -> Tensor:
        return self._reader.row(f"pictures-{shard:06d}.safetensors", int(offset))["pixels"]

    def _part(self, mask: np.ndarray) -> Self:
        part = copy.copy(self)
        part._index = {name: column[mask] for name, column in self._index.items()}
        return part


def build_comparisons(
    folder: Path,
    records: Iterable[PairRecord],
    prepare: Prepare,
    *,
    fingerprint: Mapping[str, Any] | None = None,
    skipped: Skipped | None = None,
    shard_size: int = 1024,
    progress: Callable[[int], object] | None = None,
) -> ComparisonCache:
    """Prepare every distinct image once, or open the folder if that has been done.

    `prepare` runs in threads. At most `shard_size` images are held before a shard is written; a build that
    stopped goes on with what its shards hold. `fingerprint` (plain JSON) says what records and preparation
    these are, and decides whether the folder may be reused. A damaged one is built anew. A comparison
    with an unreadable image stops the build, or with `skipped` is left out, and a warning says what is in
    there. `progress` is called with the number of comparisons just passed.
    Raises ValueError for a folder that holds something else, no comparisons, an image that cannot be read;
    OSError where a file cannot be written, and no part of it is left.
    """
    made_of = json.loads(json.dumps({**(fingerprint or {}), "format": 1, "kind": "comparisons"}))
    folder = Path(folder)
    with claimed(folder, made_of) as unfinished:
        if unfinished:
            images = _Images(folder, prepare, shard_size, skipped)
            rows, prompts = _prepared(images, records, progress)
            if skipped is not None:
                skipped.tell()
            finish_comparisons(folder, made_of, rows, prompts)
    return ComparisonCache(folder)


def _prepared(
    images: _Images, records: Iterable[PairRecord], progress: Callable[[int], object] | None
) -> tuple[Comparisons, list[str]]:
    """Put every image into a shard -> the comparisons, and their prompts."""
    rows, numbers = Comparisons(), dict[str, int]()
    with Progress(desc="preparing comparisons", unit="pair", delay=3, disable=progress is not None) as bar:
        try:
            for record in records:
                win, lose = (images.key(getattr(record, side), f"{record.name} {side}") for side in SIDES)
                number = numbers.setdefault(record.prompt, len(numbers))
                rows.add(win, lose, number, weight=record.weight, preference=record.preference)
                (progress or bar.update)(1)
            images.drain()
        finally:  # what is prepared is kept for the next attempt
            images.close()
    return rows, list(numbers)


class _Images:
    """Distinct images on their way into shards, decoded by threads that run a window ahead."""

    def __init__(self, folder: Path, prepare: Prepare, shard_size: int, skipped: Skipped | None) -> None:
        self.prepare, self.skipped = prepare, skipped
        self.known, self.seen = Known(folder, "pictures"), set[int]()
        self.writer = ShardWriter(folder, "pictures", shard_size)
        self.pool, self.room = ThreadPoolExecutor(min(8, os.cpu_count() or 1)), Room()
        self.waiting = deque[tuple[int, str, Future[Tensor]]]()

    def key(self, image: ImageSource, name: str) -> int:
        """The image's key; an image that no shard holds is queued for one."""
        key = image_key(image)
        if key not in self.seen and key not in self.known:
            self.seen.add(key)
            self.waiting.append((key, name, self.pool.submit(self._prepared, image, name.strip())))
            if len(self.waiting) > WINDOW:
                self._store()
        return key

    def drain(self) -> None:
        """Wait for all queued images."""
        while self.waiting:
            self._store()

    def close(self) -> None:
        """Write the images that are prepared, and drop the others."""
        self.pool.shutdown(cancel_futures=True)
        self.writer.close()

    def _prepared(self, image: ImageSource, name: str) -> Tensor:
        with self.room.taken() as admit:
            return self.prepare(open_rgb(image, name=name, admit=admit))

    def _store(self) -> None:
        key, name, future = self.waiting.popleft()
        try:
            pixels = future.result()
        except ValueError as error:
            if self.skipped is None:
                raise
            self.skipped.add(error, name.rsplit(" ", 1)[0])
            return
        self.writer.add({"id": torch.tensor([key]), "pixels": pixels[None].contiguous()})
