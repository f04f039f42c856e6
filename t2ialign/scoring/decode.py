"""Pictures in batches, read by worker processes: one decode a picture, one resize a picture and geometry."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils import data

from t2ialign.data.images import open_rgb
from t2ialign.data.remote import Remote
from t2ialign.scoring.items import Item

if TYPE_CHECKING:
    from rewards.preprocess import Geometry

AHEAD = 2
"""Batches that each worker decodes before they are asked for."""
FETCHED = 8
"""Pictures that each worker fetches from addresses at a time."""


@dataclass
class Pictures:
    """A decoded batch. `items` are all rows without their bytes; the rest has the `good` ones, in order."""

    items: list[Item]
    good: list[int] = field(default_factory=list)
    """Places in `items` of what could be decoded."""
    prepared: dict[Geometry, Tensor] = field(default_factory=dict)
    """Geometry -> (G, 3, size, size), normalised."""
    raw: list[Tensor] = field(default_factory=list)
    """G pictures (H, W, 3) in uint8, if they were asked for."""

    def pin_memory(self) -> Pictures:
        """The same batch in memory that a GPU copies from at once; the loader calls it."""
        prepared = {geometry: pixels.pin_memory() for geometry, pixels in self.prepared.items()}
        return replace(self, prepared=prepared, raw=[pixels.pin_memory() for pixels in self.raw])


class Decoder(data.Dataset[Pictures]):
    """A data set whose indices are lists of items: nothing but them travels to a worker process."""

    def __init__(self, geometries: Sequence[Geometry], *, raw: bool) -> None:
        self.geometries, self.raw = list(geometries), raw

    def __getitem__(self, items: Sequence[Item]) -> Pictures:
        """What the loader calls."""
        return self.decode(items)

    def decode(self, items: Sequence[Item]) -> Pictures:
        """Decode and resize; a row that cannot be gets an error text. Rows of one file are decoded once."""
        batch = Pictures([])
        tensors: dict[Geometry, list[Tensor]] = {geometry: [] for geometry in self.geometries}
        known: dict[tuple[int, str], tuple[dict[Geometry, Tensor], Tensor | None] | str] = {}
        for item in _fetched(items):
            key = (item.shard, item.file)
            if item.error is None and key not in known:
                known[key] = self._one(item)
            found = item.error if item.error is not None else known[key]
            if isinstance(found, str):
                batch.items.append(replace(item, image=None, error=found))
                continue
            batch.good.append(len(batch.items))
            batch.items.append(replace(item, image=None))
            resized, pixels = found
            for geometry, column in tensors.items():
                column.append(resized[geometry])
            if pixels is not None:
                batch.raw.append(pixels)
        # In a worker this stacks into memory that the engine sees too, which saves a copy of each batch.
        batch.prepared = {g: data.default_collate(column) for g, column in tensors.items() if column}
        return batch

    def _one(self, item: Item) -> tuple[dict[Geometry, Tensor], Tensor | None] | str:
        try:
            image = read_picture(item)
            for geometry in self.geometries:
                _check_strip(item, image, geometry)
        except ValueError as error:
            return str(error)
        resized = {geometry: geometry.reference(image) for geometry in self.geometries}
        return resized, torch.from_numpy(np.array(image)) if self.raw else None


def read_picture(item: Item) -> Image.Image:
    """The item's picture as upright 8-bit RGB, over white.

    Raises ValueError for one that is missing, empty, torn, no picture, or of more pixels than
    `PIL.Image.MAX_IMAGE_PIXELS`, which Pillow itself would only warn of up to twice that.
    """
    if item.image is None:
        raise ValueError(item.error or f"{item.file}: got no picture; expected one; drop the row")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        name = item.file if isinstance(item.image, bytes | Image.Image) else ""  # others name themselves
        return open_rgb(item.image, name=name)


def _fetched(items: Sequence[Item]) -> list[Item]:
    """The items with the bytes of what lies at addresses, or with why there are none."""
    images = [item.image if item.error is None else None for item in items]
    remotes = list(dict.fromkeys(image for image in images if isinstance(image, Remote)))
    if not remotes:
        return list(items)
    with ThreadPoolExecutor(FETCHED) as pool:
        contents = dict(zip(remotes, pool.map(_content, remotes), strict=True))
    return [
        replace(item, **contents[image]) if isinstance(image, Remote) else item
        for item, image in zip(items, images, strict=True)
    ]


def _content(remote: Remote) -> dict[str, Any]:
    try:
        return {"image": remote.fetch()}
    except ValueError as error:
        return {"image": None, "error": str(error)}


def _check_strip(item: Item, image: Image.Image, geometry: Geometry) -> None:
    """A picture of few pixels can be so long that scaling its short side up makes a bomb of it."""
    height, width = geometry.scaled(image.height, image.width)
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and height * width > most:
        raise ValueError(
            f"{item.file}: got {image.width}x{image.height} pixels, {width}x{height} when scaled; expected "
            f"at most {most} pixels; crop the picture or drop its row"
        )


def load(
    batches: Iterable[list[Item]], decoder: Decoder, *, workers: int, pin: bool = False
) -> Iterator[Pictures]:
    """Batches of items -> decoded, in order, by `workers` processes that stay `AHEAD` batches ahead; 0: here.

    `batches` is drawn from in this process, no further than that.
    """
    options: dict[str, Any] = {"prefetch_factor": AHEAD} if workers else {}
    return iter(
        data.DataLoader(
            decoder,
            batch_size=None,
            sampler=batches,
            num_workers=workers,
            collate_fn=_same,
            pin_memory=pin,
            **options,
        )
    )


def default_workers() -> int:
    """Processes to decode with: one less than the processors this process may use, between 1 and 8."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, allowed - 1))


def _same(batch: Any) -> Any:
    """A batch is made whole by the decoder; a function of a module, so that any worker can be sent it."""
    return batch
