"""Images in batches, read by worker processes: one decode an image, one resize an image and geometry."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils import data

from t2ialign.data.images import Admit, OverBudget, levels, open_rgb
from t2ialign.data.remote import Remote
from t2ialign.scoring.budget import MAX_BATCH_PIXELS
from t2ialign.scoring.items import Item

if TYPE_CHECKING:
    from rewards.preprocess import Geometry

AHEAD = 2
"""Batches that each worker decodes in advance."""
FETCHED = 8
"""Images that each worker fetches from addresses at a time."""
SPARE = 2
"""A large JPEG is decoded at this multiple of a scorer's size, so that the resize still averages."""


@dataclass
class Images:
    """A decoded batch. `items` are all rows without their bytes; the rest has the `good` ones, in order."""

    items: list[Item]
    good: list[int] = field(default_factory=list)
    """Places in `items` of the images that could be decoded."""
    prepared: dict[Geometry, Tensor] = field(default_factory=dict)
    """Geometry -> (G, 3, size, size), normalised."""
    raw: list[Tensor] = field(default_factory=list)
    """G images (H, W, 3) in uint8, for rewards that read them at full size."""
    rest: list[Item] = field(default_factory=list)
    """Items that follow and were not decoded, since the batch is full."""

    def pin_memory(self) -> Images:
        """The same batch in memory that a GPU copies from at once; the loader calls it."""
        prepared = {geometry: pixels.pin_memory() for geometry, pixels in self.prepared.items()}
        return replace(self, prepared=prepared, raw=[pixels.pin_memory() for pixels in self.raw])


class Decoder(data.Dataset[Images]):
    """A data set whose indices are lists of items: nothing but them travels to a worker process."""

    def __init__(
        self, geometries: Sequence[Geometry], *, raw: bool, max_pixels: int = MAX_BATCH_PIXELS
    ) -> None:
        """`raw`: images are asked for at full size too, of at most `max_pixels` in a batch.

        An image of more pixels is decoded alone. Without `raw` a JPEG of more is decoded at a half, a quarter
        or an eighth of its size, as long as that is `SPARE` times what every geometry reads.
        """
        self.geometries, self.raw, self.max_pixels = list(geometries), raw, max_pixels
        self.fitting: int | None = None

    def __getitem__(self, items: Sequence[Item]) -> Images:
        """Called by the loader: an image above the budget is left to the process that scores."""
        return self.decode(items, alone=False)

    def parts(self, items: Sequence[Item]) -> Iterator[Images]:
        """All items decoded, in order: batches within the budget, and an image above it alone."""
        rest = list(items)
        while rest:
            batch = self.decode(rest)
            rest = batch.rest
            yield batch

    def learn(self, batch: Images) -> None:
        """Note of a batch how many images like its own are within the budget, so that no more are drawn."""
        if batch.raw:
            pixels = sum(image.shape[0] * image.shape[1] for image in batch.raw)
            self.fitting = max(1, self.max_pixels * len(batch.raw) // pixels)

    def room(self, size: int) -> int:
        """The number of items for the next batch of at most `size`."""
        return size if self.fitting is None else min(size, self.fitting)

    def decode(self, items: Sequence[Item], *, alone: bool = True) -> Images:
        """Decode and resize, up to the first item that is beyond the budget; it begins `rest`.

        A row that cannot be decoded gets an error text. Rows of one file are decoded once. `alone`: the first
        image may be larger than the budget.
        """
        batch, left = Images([]), self.max_pixels
        tensors: dict[Geometry, list[Tensor]] = {geometry: [] for geometry in self.geometries}
        known: dict[tuple[int, str], tuple[dict[Geometry, Tensor], Tensor | None] | str] = {}
        items = _fetched(items)
        for place, item in enumerate(items):
            key = (item.shard, item.file)
            most = None if alone and not batch.good else left
            if item.error is None and key not in known:
                try:
                    known[key] = self._one(item, most)
                except OverBudget:
                    batch.rest = items[place:]
                    break
            decoded = item.error if item.error is not None else known[key]
            if isinstance(decoded, str):
                batch.items.append(replace(item, image=None, error=decoded))
                continue
            resized, pixels = decoded
            if pixels is not None:
                area = pixels.shape[0] * pixels.shape[1]
                if most is not None and area > most:  # another row of a file that was decoded
                    batch.rest = items[place:]
                    break
                left -= area
                batch.raw.append(pixels)
            batch.good.append(len(batch.items))
            batch.items.append(replace(item, image=None))
            for geometry, column in tensors.items():
                column.append(resized[geometry])
        # In a worker this stacks into memory that the engine sees too, which saves a copy of each batch.
        batch.prepared = {g: data.default_collate(column) for g, column in tensors.items() if column}
        return batch

    def _one(self, item: Item, most: int | None) -> tuple[dict[Geometry, Tensor], Tensor | None] | str:
        """The decoded image, or the reason why there is none. Raises OverBudget for one of more pixels."""
        try:
            image = read_image(item, admit=self._admit(most))
            for geometry in self.geometries:
                _check_strip(item, image, geometry)
        except ValueError as error:
            return str(error)
        resized = {geometry: geometry.reference(image) for geometry in self.geometries}
        return resized, torch.from_numpy(levels(image)) if self.raw else None

    def _admit(self, most: int | None) -> Admit:
        def admit(height: int, width: int) -> tuple[int, int] | None:
            if most is not None and height * width > most:
                raise OverBudget
            if self.raw or height * width <= self.max_pixels or not self.geometries:
                return None
            sizes = [geometry.scaled(height, width) for geometry in self.geometries]
            return SPARE * max(high for high, _ in sizes), SPARE * max(wide for _, wide in sizes)

        return admit


def read_image(item: Item, *, admit: Admit | None = None) -> Image.Image:
    """The item's image as upright 8-bit RGB, over white; `admit` as in `open_rgb`.

    Raises ValueError for one that is missing, empty, torn, no image, or of more pixels than
    `PIL.Image.MAX_IMAGE_PIXELS`, which Pillow itself would only warn of up to twice that.
    """
    if item.image is None:
        raise ValueError(item.error or f"{item.file}: got no image; expected one; drop the row")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        name = item.file if isinstance(item.image, bytes | Image.Image) else ""  # others name themselves
        return open_rgb(item.image, name=name, admit=admit)


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
    """An image of few pixels can be so long that scaling its short side up makes a bomb of it."""
    height, width = geometry.scaled(image.height, image.width)
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and height * width > most:
        raise ValueError(
            f"{item.file}: got {image.width}x{image.height} pixels, {width}x{height} when scaled; expected "
            f"at most {most} pixels; crop the image or drop its row"
        )


def load(
    batches: Iterable[list[Item]], decoder: Decoder, *, workers: int, pin: bool = False
) -> Iterator[Images]:
    """Batches of items -> decoded, in order, by `workers` processes that stay `AHEAD` batches ahead; 0: here.

    `batches` is drawn from in this process, no further than that. What a worker has left for want of room is
    decoded here, a part at a time, when its turn has come.
    """
    options: dict[str, Any] = {"prefetch_factor": AHEAD} if workers else {}
    loader = data.DataLoader(
        decoder,
        batch_size=None,
        sampler=batches,
        num_workers=workers,
        collate_fn=_same,
        pin_memory=pin,
        **options,
    )
    for batch in loader:
        decoder.learn(batch)
        if batch.items:
            yield batch
        yield from decoder.parts(batch.rest)


def default_workers() -> int:
    """Processes to decode with: one less than the processors this process may use, between 1 and 8."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, allowed - 1))


def _same(batch: Any) -> Any:
    """A batch is made whole by the decoder; a function of a module, so that any worker can be sent it."""
    return batch
