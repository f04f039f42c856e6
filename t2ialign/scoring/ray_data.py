"""The same scoring as a Ray Data pipeline: shards are read and decoded by tasks, scored by actors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rewards
from rewards import Prepared
from rewards.device import default_device
from rewards.preprocess import Geometry
from t2ialign.data.remote import Remote
from t2ialign.io import naming
from t2ialign.scoring.budget import MAX_BATCH_PIXELS
from t2ialign.scoring.decode import Decoder, Images
from t2ialign.scoring.engine import WINDOW, Engine, Row, rows_of
from t2ialign.scoring.items import Item, Source
from t2ialign.scoring.journal import Journal
from t2ialign.scoring.scorable import check_some_prompt, needing, without_prompt

PARTS = 4
"""Pieces that a source of one shard is cut into, for each worker."""
CPU = 0.5
"""The share of a processor for a scoring actor, so that decoding tasks always find room beside it."""

Batch = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """The job of a worker, which opens the source and loads the rewards itself, by the same names."""

    open: Callable[[], Source]
    names: Sequence[str]
    options: Mapping[str, Mapping[str, Any]]
    batch_size: int = 64
    precision: str = "fp32"
    max_batch_pixels: int = MAX_BATCH_PIXELS


def score(job: Job, journal: Journal, *, workers: int) -> Iterator[list[Row]]:
    """Score what the journal lacks with `workers` actors, one GPU each where the cluster has any -> rows.

    Rows come in no fixed order. Joins the cluster of RAY_ADDRESS, else starts one here. Raises ValueError if
    Ray is not installed, and like `Engine.score`.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError(
            f"got {naming.name('ray')} without Ray ({error}); expected it; install it with "
            "pip install 't2ialign[ray]'"
        ) from error
    loaded = rewards.load_all(job.names, job.options)  # here too: for mistakes at once, and for what they see
    asking = needing(loaded)
    skip = len(asking) == len(loaded)
    geometries = list(dict.fromkeys(r.geometry for r in loaded.values() if isinstance(r, Prepared)))
    raw = any(not isinstance(reward, Prepared) for reward in loaded.values())
    del loaded
    source = job.open()
    if asking and not journal.done:
        check_some_prompt(list(islice(source.items(), WINDOW)), asking)
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    gpus = 1 if ray.cluster_resources().get("GPU", 0) >= workers else 0
    done, parts = ray.put(journal.done), _parts(len(source.shards), workers)
    pipeline = (
        ray.data.from_items(parts, override_num_blocks=len(parts))
        .flat_map(_Read(job.open, done, skip))
        .map_batches(
            _Decode(Decoder(geometries, raw=raw, max_pixels=job.max_batch_pixels)),
            batch_size=job.batch_size,
            batch_format="numpy",
        )
        .map_batches(
            _Score,
            fn_constructor_args=(job, geometries, bool(journal.done)),
            compute=ray.data.ActorPoolStrategy(size=workers),
            batch_size=None if raw else job.batch_size,  # images at full size stay the blocks they came in
            batch_format="numpy",
            num_gpus=gpus,
            num_cpus=0 if gpus else CPU,
        )
    )
    for batch in pipeline.iter_batches(batch_size=job.batch_size, batch_format="numpy"):
        kinds: dict[str, list[Row]] = {"fatal": [], "done": [], "row": []}
        for line in batch["line"]:
            kind, row = json.loads(line)
            kinds[kind].append(row)
        journal.done_before |= {row["id"]: (row["shard"], row["row"]) for row in kinds["done"]}
        yield kinds["row"]
        for row in kinds["fatal"]:
            raise ValueError(row["error"])


def _parts(shards: int, workers: int) -> list[dict[str, int]]:
    """Rows of the first data set: a shard, and which of how many parts of it."""
    parts = max(1, -(-PARTS * workers // shards))
    return [
        {"shard": shard, "part": part, "parts": parts} for shard in range(shards) for part in range(parts)
    ]


class _Read:
    """A part of a shard -> rows of items, without nulls, which columns of mixed blocks cannot hold."""

    def __init__(self, open_source: Callable[[], Source], done: Any, skip: bool) -> None:
        self.open, self.done, self.skip = open_source, done, skip

    def __call__(self, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        import ray

        done, shard = ray.get(self.done), int(row["shard"])
        try:
            for item in self.open().read(shard):
                if item.row % row["parts"] == row["part"]:
                    seen = item.identity in done
                    yield self._columns(item, "done" if seen else "row")
        except ValueError as error:
            yield self._columns(Item(shard, 0, "", None, None, error=str(error)), "fatal")

    def _columns(self, item: Item, kind: str) -> dict[str, Any]:
        if self.skip and kind == "row":
            item = without_prompt(item)
        return {
            **{"shard": item.shard, "row": item.row, "file": item.file, "stamp": item.stamp, "kind": kind},
            **{"prompt": item.prompt or "", "prompted": item.prompt is not None, "repeat": item.repeat},
            "error": item.error or "",
            "data": item.image if isinstance(item.image, bytes) and kind == "row" else b"",
            "path": str(item.image) if isinstance(item.image, Path) else "",
            "address": item.image.address if isinstance(item.image, Remote) else "",
        }


class _Decode:
    """Rows of items -> the same with their squares, one column a geometry, and raw pixels as bytes."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        items, todo = _items(batch), _todo(batch)
        start = done = 0
        for images in self.decoder.parts([items[place] for place in todo]):
            places = todo[done : done + len(images.items)]
            done += len(places)
            end = places[-1] + 1 if done < len(todo) else len(items)
            part = {name: column[start:end] for name, column in batch.items()}
            yield self._rows(part, images, [place - start for place in places])
            start = end
        if not todo:
            yield self._rows(batch, Images([]), [])

    def _rows(self, batch: Batch, images: Images, todo: Sequence[int]) -> Batch:
        """Rows, and what was decoded of those at the places `todo`."""
        good, count = [todo[place] for place in images.good], len(batch["row"])
        errors = [str(error) for error in batch["error"]]
        for place, item in zip(todo, images.items, strict=True):
            errors[place] = item.error or ""
        out = {name: batch[name] for name in batch if name not in ("data", "error")}
        out |= {"error": np.array(errors, object), "good": np.isin(np.arange(count), good)}
        for index, geometry in enumerate(self.decoder.geometries):
            squares = np.zeros((count, 3, geometry.size, geometry.size), np.float32)
            if good:
                squares[good] = images.prepared[geometry].numpy()
            out[f"square{index}"] = squares
        pixels, shape = [b""] * count, np.zeros((count, 2), np.int64)
        for place, image in zip(good, images.raw, strict=False):
            pixels[place], shape[place] = image.numpy().tobytes(), image.shape[:2]
        return {**out, "pixels": np.array(pixels, object), "shape": shape}


class _Score:
    """An actor that holds the rewards: decoded rows -> lines of (kind, journal row)."""

    def __init__(self, job: Job, geometries: Sequence[Geometry], proven: bool) -> None:
        device = default_device()
        loaded = rewards.load_all(job.names, job.options)
        size, precision = job.batch_size, job.precision
        self.engine = Engine(loaded, device=device, batch_size=size, precision=precision, proven=proven)
        self.max_pixels = job.max_batch_pixels
        self.geometries = list(geometries)

    def __call__(self, batch: Batch) -> Batch:
        items = _items(batch)
        lines: list[tuple[str, Row]] = [
            (str(kind), {"id": item.identity, "shard": item.shard, "row": item.row, "error": item.error})
            for item, kind in zip(items, batch["kind"], strict=True)
            if kind != "row"
        ]
        try:
            for places in self._runs(batch):
                images = self._images(batch, items, places)
                lines += [("row", row) for row in rows_of(images, *self.engine.launch(images))]
        except ValueError as error:  # as a line, since Ray would wrap it in pages of its own
            lines.append(("fatal", {"error": str(error)}))
        return {"line": np.array([json.dumps(line) for line in lines], object)}

    def _runs(self, batch: Batch) -> Iterator[list[int]]:
        """Places of the rows to score, as many together as a batch may have, and as their pixels allow."""
        run, pixels = list[int](), 0
        for place in _todo(batch):
            area = int(np.prod(batch["shape"][place]))
            if run and (len(run) == self.engine.batch_size or pixels + area > self.max_pixels):
                yield run
                run, pixels = [], 0
            run.append(place)
            pixels += area
        if run:
            yield run

    def _images(self, batch: Batch, items: list[Item], todo: Sequence[int]) -> Images:
        good = [place for place in todo if batch["good"][place]]
        images = Images([items[place] for place in todo], [todo.index(place) for place in good])
        for index, geometry in enumerate(self.geometries):
            images.prepared[geometry] = torch.from_numpy(batch[f"square{index}"][good])
        if self.engine.decoder.raw:
            for place in good:
                flat = torch.frombuffer(bytearray(batch["pixels"][place]), dtype=torch.uint8)
                images.raw.append(flat.view(*map(int, batch["shape"][place]), 3))
        return images


def _todo(batch: Batch) -> list[int]:
    """Places of the rows that are to be scored."""
    return [place for place, kind in enumerate(batch["kind"]) if kind == "row"]


def _items(batch: Batch) -> list[Item]:
    names = ("shard", "row", "file", "prompt", "prompted", "stamp", "repeat", "error", "path", "address")
    data = batch.get("data", [b""] * len(batch["row"]))
    items = []
    for values in zip(*(batch[name] for name in names), data, strict=True):
        shard, row, file, prompt, prompted, stamp, repeat, error, path, address, content = values
        item = Item(int(shard), int(row), str(file), str(prompt) if prompted else None, content, str(stamp))
        image = Remote(address) if address else Path(path) if path else content
        item = replace(item, image=image, repeat=int(repeat), error=error or None)
        items.append(item)
    return items
