"""The contents of the shards of a cache folder, and their index, which completes the cache."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rewards import tensor_files
from t2ialign.data.cache.shards import read_columns, shard_files, whole_file
from t2ialign.data.cache.stored import INDEX, MANIFEST, PROMPTS
from t2ialign.io.hashes import HASHES, digest, noted, sealed

STARTED = "building.json"
"""The file that says what an unfinished build is making."""


class Known:
    """The keys of the contents of a stem's whole shards."""

    def __init__(self, folder: Path, stem: str) -> None:
        self.keys = np.unique(_keys(shard_files(folder, stem)))

    def __contains__(self, key: int) -> bool:
        place = int(np.searchsorted(self.keys, key))
        return place < len(self.keys) and int(self.keys[place]) == key


class Rows:
    """The rows of this build in the order they were read: key, numbers of prompts, weight, labels."""

    def __init__(self) -> None:
        self.keys, self.prompts, self.weights = array("q"), array("q"), array("f")
        self.labels: dict[str, array[float]] = {}

    @property
    def width(self) -> int:
        """The number of prompts of a row."""
        return len(self.prompts) // len(self.keys) if self.keys else 1

    def add(self, key: int, prompts: Sequence[int], weight: float, labels: Mapping[str, float]) -> None:
        """One more row; all rows have as many prompts, first that of the images, and the same labels."""
        self.keys.append(key)
        self.prompts.extend(prompts)
        self.weights.append(weight)
        for name, value in labels.items():
            self.labels.setdefault(name, array("f")).append(value)


class Comparisons:
    """The same for comparisons of single images: two keys, number of the prompt, weight, preference."""

    def __init__(self) -> None:
        self.wins, self.loses, self.prompts = array("q"), array("q"), array("q")
        self.weights, self.preferences = array("f"), array("f")

    def add(self, win: int, lose: int, prompt: int, *, weight: float, preference: float) -> None:
        """One more comparison."""
        self.wins.append(win)
        self.loses.append(lose)
        self.prompts.append(prompt)
        self.weights.append(weight)
        self.preferences.append(preference)


def finish(
    folder: Path, stem: str, made_of: dict[str, Any], rows: Rows, texts: list[int], prompts: list[str]
) -> None:
    """Index the shards of a stem, then write the manifest: now it is a cache.

    `texts` are the keys of the prompts. A row that no shard holds was left out. Raises ValueError for
    no rows.
    """
    row_files, text_files = shard_files(folder, stem), shard_files(folder, "texts")
    index = _row_index(row_files, rows)
    count = len(index["shard"])
    if not count:
        raise _nothing(folder, stem)
    index |= _text_index(text_files, texts)
    _seal(folder, made_of, index, [*row_files, *text_files], prompts, count)


def finish_comparisons(folder: Path, made_of: dict[str, Any], rows: Comparisons, prompts: list[str]) -> None:
    """Index the shards of images, then write the manifest, as `finish` does for pairs.

    A row of which an image is in no shard was left out. Raises ValueError for no rows.
    """
    files = shard_files(folder, "pictures")
    index: dict[str, np.ndarray] = {
        "prompt": np.array(rows.prompts, dtype=np.int64),
        "weight": np.array(rows.weights, dtype=np.float32),
        "preference": np.array(rows.preferences, dtype=np.float32),
    }
    shard, offset = _places(files)
    whole = np.ones(len(rows.prompts), dtype=bool)
    for side, keys in (("win", rows.wins), ("lose", rows.loses)):
        there, place = _find(files, np.array(keys, dtype=np.int64))
        whole &= there
        place = np.where(there, place, 0)
        index |= {f"{side}_shard": shard[place], f"{side}_offset": offset[place]} if len(shard) else {}
    if not whole.any():
        raise _nothing(folder, "pairs")
    index = {name: np.ascontiguousarray(column[whole]) for name, column in index.items()}
    _seal(folder, made_of, index, files, prompts, int(whole.sum()))


def _nothing(folder: Path, rows: str) -> ValueError:
    return ValueError(f"got no readable {rows} for cache {folder}; expected at least one; check the source")


def _seal(
    folder: Path,
    made_of: dict[str, Any],
    index: dict[str, np.ndarray],
    shards: list[Path],
    prompts: list[str],
    pairs: int,
) -> None:
    """Write index, prompts and, last of all, the manifest."""
    with whole_file(folder / INDEX) as path:
        tensor_files.write({name: torch.from_numpy(column) for name, column in index.items()}, path)
    write_json(folder / PROMPTS, prompts)
    files = [*shards, folder / INDEX, folder / PROMPTS]
    manifest = {
        "fingerprint": made_of,
        "pairs": pairs,
        "prompts": len(prompts),
        "files": {path.name: path.stat().st_size for path in files},
    }
    known = noted(folder) or {}
    hashes = {path.name: known.get(path.name) or digest(path) for path in files}
    write_json(folder / MANIFEST, sealed(manifest, MANIFEST, hashes))
    (folder / STARTED).unlink()
    (folder / HASHES).unlink(missing_ok=True)


def _row_index(shards: list[Path], rows: Rows) -> dict[str, np.ndarray]:
    """The place of each row, its prompt, weight, labels and bucket, in the order the rows were read."""
    there, place = _find(shards, np.array(rows.keys, dtype=np.int64))
    place = place[there]
    sizes = [read_columns(path, "sizes")[0][:, 0, 0, 4:] for path in shards]
    targets = np.concatenate([np.zeros((0, 2), np.int32), *sizes])[place]
    shard, offset = _places(shards)
    prompts = np.array(rows.prompts, dtype=np.int64).reshape(len(rows.keys), rows.width)[there]
    others = {"others": prompts[:, 1:]} if prompts.shape[1] > 1 else {}
    columns = {
        "shard": shard[place],
        "offset": offset[place],
        "prompt": prompts[:, 0],
        **others,
        "weight": np.array(rows.weights, dtype=np.float32)[there],
        "bucket": np.unique(targets, axis=0, return_inverse=True)[1].reshape(-1),
        **{name: np.array(column, dtype=np.float32)[there] for name, column in rows.labels.items()},
    }
    return {name: np.ascontiguousarray(column) for name, column in columns.items()}


def _text_index(shards: list[Path], keys: list[int]) -> dict[str, np.ndarray]:
    """The place of each prompt's embedding, by the prompt's number."""
    there, place = _find(shards, np.array(keys, dtype=np.int64))
    assert there.all(), f"{int((~there).sum())} of {len(keys)} prompts were not encoded"
    shard, offset = _places(shards)
    return {"text_shard": shard[place], "text_offset": offset[place]}


def _find(shards: list[Path], wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(whether it is there, its place over all shards) of each wanted key."""
    keys = _keys(shards)
    if not len(keys):
        return np.zeros(len(wanted), dtype=bool), np.zeros(len(wanted), dtype=np.int64)
    known, first = np.unique(keys, return_index=True)
    at = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return known[at] == wanted, first[at]


def _keys(shards: list[Path]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *(read_columns(path, "id")[0] for path in shards)])


def _places(shards: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """(shard number, offset in it) of every stored row, in the order of the shards."""
    lengths = [len(read_columns(path, "id")[0]) for path in shards]
    numbers = np.array([int(path.stem.split("-")[1]) for path in shards], dtype=np.int64)
    offsets = [np.arange(length) for length in lengths]
    return np.repeat(numbers, lengths), np.concatenate([np.zeros(0, np.int64), *offsets])


def write_json(path: Path, value: Any) -> None:
    """Write JSON at once or not at all."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
