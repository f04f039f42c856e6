"""Build a cache in one streaming pass: bounded memory, atomic, going on where an earlier build died."""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from t2ialign.data.cache.claim import claimed
from t2ialign.data.cache.keys import image_key, text_key
from t2ialign.data.cache.ledger import Known, Rows, finish
from t2ialign.data.cache.shards import ShardWriter
from t2ialign.data.cache.stored import EncodedCache
from t2ialign.data.images import ImageSource, open_rgb
from t2ialign.data.room import Room
from t2ialign.data.skipped import Skipped
from t2ialign.data.transform import Framed, Size, bucket_sizes, frame, nearest_bucket
from t2ialign.models.base import Policy
from t2ialign.progress import Progress

TEXT_BATCH = 32

Variants = list[list[Framed]]
"""The images of a row, such as winner and loser, as they are and, if `flip` is set, mirrored."""
CacheT = TypeVar("CacheT", bound=EncodedCache[Any])


class Record(Protocol):
    """A row of data: a `PairRecord`, or a `RatedRecord`."""

    @property
    def prompt(self) -> str:
        """The prompt of its images."""

    @property
    def images(self) -> Mapping[str, ImageSource]:
        """Its images, by what messages call them."""

    @property
    def weight(self) -> float:
        """Its weight in the loss."""

    @property
    def labels(self) -> Mapping[str, float]:
        """The numbers that are stored beside the images, the same ones for every row."""

    @property
    def others(self) -> Sequence[str]:
        """Prompts that its own is set against, as many for every row; mostly none."""

    @property
    def name(self) -> str:
        """The place in the source, for messages."""


@dataclass(frozen=True)
class _Job:
    row: int
    key: int
    record: Record
    unit: str

    @property
    def name(self) -> str:
        """What messages call the row."""
        return self.record.name or f"{self.unit} {self.row}"


def build_cache(
    kind: type[CacheT],
    folder: Path,
    records: Iterable[Record],
    policy: Policy,
    *,
    resolution: int,
    buckets: bool = False,
    flip: bool = False,
    batch_size: int = 8,
    shard_size: int = 512,
    fingerprint: Mapping[str, Any] | None = None,
    skipped: Skipped | None = None,
    progress: Callable[[int], object] | None = None,
) -> CacheT:
    """Encode every image and every distinct prompt once, or open the folder if that has been done.

    kind: the cache that fits the records. Images become resolution x resolution centre crops, or with
    `buckets` the aspect bucket nearest to the images of a row; with `flip` each row is stored mirrored too
    (twice the disk) and each epoch draws one of the two. `batch_size` rows make a VAE forward; at most
    `shard_size` rows are held before a shard is written.
    `fingerprint` (plain JSON) says what records and model these are: with the settings above it decides
    whether the folder may be reused or a build that stopped may go on; what is encoded is known by its
    contents, so the rows of that build may have been mended. A damaged cache is built anew.
    An unreadable image stops the build, or with `skipped` is left out, and a warning says what is in
    there. `progress` is called with the number of rows just passed; without it a bar appears after 3 s.
    Raises ValueError for a folder that holds something else, no rows, an image that cannot be read, latents
    that are not finite; OSError where a file cannot be written, and no part of it is left.
    """
    sizes = _sizes(policy, resolution, buckets)
    made_of = {
        **(fingerprint or {}),
        **kind.made_of,
        **{"format": 2, "resolution": resolution, "buckets": buckets, "flip": flip},
        **{"image_factor": policy.image_factor, "latent_channels": policy.latent_channels},
    }
    made_of = json.loads(json.dumps(made_of))
    folder = Path(folder)
    with claimed(folder, made_of) as unfinished:
        if unfinished:
            texts, rows = _Texts(folder, policy, shard_size), Rows()
            shards, unit, shown = ShardWriter(folder, kind.stem, shard_size), kind.unit, progress is None
            with Progress(desc=f"encoding {unit}s", unit=unit, delay=3, disable=not shown) as bar:
                jobs = _jobs(Known(folder, kind.stem), records, texts, rows, unit, progress or bar.update)
                try:
                    for window in _decoded(jobs, sizes, flip=flip, window=2 * batch_size):
                        for size, group in _by_size(window, skipped).items():
                            for part in _chunks(group, batch_size):
                                shards.add(_encode(policy, part), size)
                except (ValueError, KeyboardInterrupt):  # what is encoded is kept for the next attempt
                    shards.close()
                    texts.close()
                    raise
            shards.close()
            texts.close()
            if skipped is not None:
                skipped.tell()
            prompts = list(texts.numbers)
            finish(folder, kind.stem, made_of, rows, [text_key(prompt) for prompt in prompts], prompts)
    return kind(folder)


class _Texts:
    """One embedding per distinct prompt, numbered in order of first appearance."""

    def __init__(self, folder: Path, policy: Policy, shard_size: int) -> None:
        self.policy, self.numbers = policy, dict[str, int]()
        self.writer = ShardWriter(folder, "texts", shard_size)
        self.done = Known(folder, "texts")
        self.waiting: list[str] = []

    def number(self, prompt: str) -> int:
        """The prompt's number; it is encoded sooner or later, unless an earlier build did."""
        if prompt not in self.numbers:
            self.numbers[prompt] = len(self.numbers)
            if text_key(prompt) not in self.done:
                self.waiting.append(prompt)
        if len(self.waiting) == TEXT_BATCH:
            self._encode()
        return self.numbers[prompt]

    def close(self) -> None:
        """Encode and write what is waiting."""
        if self.waiting:
            self._encode()
        self.writer.close()

    def _encode(self) -> None:
        with torch.no_grad():
            cond = self.policy.encode_prompts(self.waiting)
        ids = torch.tensor([text_key(prompt) for prompt in self.waiting])
        rows = {key: _stored(value, "text encoder", self.waiting) for key, value in cond.items()}
        self.writer.add({"id": ids, **rows})
        self.waiting = []


def _sizes(policy: Policy, resolution: int, buckets: bool) -> list[Size]:
    """The sizes to choose from, every one of which the model can take."""
    sizes = bucket_sizes(resolution, policy.size_multiple) if buckets else [(resolution, resolution)]
    for height, width in sizes:
        policy.latent_shape(height, width)
    return sizes


def _jobs(
    done: Known,
    records: Iterable[Record],
    texts: _Texts,
    rows: Rows,
    unit: str,
    progress: Callable[[int], object],
) -> Iterator[_Job]:
    """The records that are left to encode; every record goes into `rows`."""
    for row, record in enumerate(records):
        key = image_key(*record.images.values())
        prompts = [texts.number(prompt) for prompt in (record.prompt, *record.others)]
        rows.add(key, prompts, record.weight, record.labels)
        if key not in done:
            yield _Job(row, key, record, unit)
        progress(1)


def _decoded(
    jobs: Iterator[_Job], sizes: list[Size], *, flip: bool, window: int
) -> Iterator[list[tuple[_Job, "Future[Variants]"]]]:
    """Windows of jobs whose images are being decoded in threads, one window ahead of its use."""
    pool, room = ThreadPoolExecutor(min(8, os.cpu_count() or 1)), Room()
    ahead: list[tuple[_Job, Future[Variants]]] = []
    try:
        while chunk := list(islice(jobs, window)):
            ready, ahead = (
                ahead,
                [(job, pool.submit(_prepare, job.record, sizes, flip, room)) for job in chunk],
            )
            if ready:
                yield ready
        yield ahead
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(record: Record, sizes: list[Size], flip: bool, room: Room) -> Variants:
    with room.taken() as admit:
        images = [
            open_rgb(image, name=f"{record.name} {side}".strip(), admit=admit)
            for side, image in record.images.items()
        ]
        size = nearest_bucket(images, sizes)
        return [
            [frame(image, size, mirror=mirror) for image in images]
            for mirror in ((False, True) if flip else (False,))
        ]


def _by_size(
    window: list[tuple[_Job, "Future[Variants]"]], skipped: Skipped | None
) -> dict[Size, list[tuple[_Job, Variants]]]:
    groups: dict[Size, list[tuple[_Job, Variants]]] = defaultdict(list)
    for job, future in window:
        try:
            variants = future.result()
        except ValueError as error:
            if skipped is None:
                raise
            skipped.add(error, job.name)
            continue
        groups[variants[0][0].target].append((job, variants))
    return groups


def _chunks(group: list[Any], size: int) -> Iterator[list[Any]]:
    return (group[start : start + size] for start in range(0, len(group), size))


def _encode(policy: Policy, part: list[tuple[_Job, Variants]]) -> dict[str, Tensor]:
    """Shard rows of n rows of one size and S images each; latents (n, V, S, C, h, w)."""
    framed_images = [framed for _, variants in part for images in variants for framed in images]
    with torch.no_grad():
        images = torch.stack([framed.pixels for framed in framed_images])
        latents = dict(zip(("mean", "std"), policy.encode_images(images.to(policy.device)), strict=True))
    names = [job.name for job, _ in part]
    lead = len(part), len(part[0][1]), len(part[0][1][0])
    sizes = [(*framed.original, *framed.crop, *framed.target) for framed in framed_images]
    return {
        **{key: _stored(value.unflatten(0, lead), "VAE", names) for key, value in latents.items()},
        "sizes": torch.tensor(sizes, dtype=torch.int32).view(*lead, 6),
        "id": torch.tensor([job.key for job, _ in part]),
    }


def _stored(values: Tensor, maker: str, names: list[str]) -> Tensor:
    """Move tensors to the CPU, floats as fp16: half the disk, and finer than the posterior's noise."""
    values = values.detach().cpu()
    if not values.is_floating_point():
        return values.contiguous()
    values = values.half().contiguous()
    if not values.isfinite().all():
        row = int((~values.flatten(1).isfinite().all(1)).nonzero()[0])
        raise ValueError(
            f"got {maker} output that is not finite for {names[row]}; expected finite values; run it in fp32"
        )
    return values
