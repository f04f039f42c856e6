"""What a cache folder holds, and when it counts as finished: claimed at the start, indexed at the end."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from t2ialign.data.shards import read_columns, shard_files, whole_file
from t2ialign.data.stored import MANIFEST, read_manifest

STARTED = "building.json"
STEMS = ("pairs", "texts", "pictures")
"""What shards may be called."""
CHOICE = ("contents", "limit", "ties")
"""Of a make, what says which rows are read, not how they are encoded: an unfinished build may change it."""


def claim(folder: Path, made_of: dict[str, Any]) -> bool:
    """Whether a finished cache of this make lies in the folder; if not, the folder becomes ours to fill.

    A build that died before its first shard leaves no claim, and one that has some goes on after its rows
    were mended. Raises ValueError if the folder holds a cache of another make, or anything else.
    """
    manifest = read_manifest(folder)
    found, free = (manifest["fingerprint"], ()) if manifest else (_unfinished(folder), CHOICE)
    if found is not None and (keys := _differences(found, made_of, free)):
        raise ValueError(
            f"got cache {folder} made with {', '.join(f'{key}={found.get(key)}' for key in keys)}; expected "
            f"{', '.join(f'{key}={made_of.get(key)}' for key in keys)}; delete it or choose another folder"
        )
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(path.suffix != ".partial" and path.name != STARTED for path in folder.iterdir()):
            raise ValueError(f"got cache folder {folder}, which holds other files; expected an empty one")
    if not manifest:
        _write_json(folder / STARTED, made_of)
    for path in folder.glob("*.partial"):
        path.unlink()
    return manifest is not None


class Known:
    """The keys of what a stem's whole shards hold."""

    def __init__(self, folder: Path, stem: str) -> None:
        self.keys = np.unique(_keys(shard_files(folder, stem)))

    def __contains__(self, key: int) -> bool:
        place = int(np.searchsorted(self.keys, key))
        return place < len(self.keys) and int(self.keys[place]) == key


class Rows:
    """The pairs of this build in the order they were read: key, number of the prompt, weight."""

    def __init__(self) -> None:
        self.keys, self.prompts, self.weights = array("q"), array("q"), array("f")

    def add(self, key: int, prompt: int, weight: float) -> None:
        """One more pair."""
        self.keys.append(key)
        self.prompts.append(prompt)
        self.weights.append(weight)


class Comparisons:
    """The same for comparisons of single pictures: two keys, number of the prompt, weight, preference."""

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


def finish(folder: Path, made_of: dict[str, Any], rows: Rows, texts: list[int], prompts: list[str]) -> None:
    """Index the shards, then write the manifest: now it is a cache.

    `texts` are the keys of the prompts. A row that no shard holds was left out. Raises ValueError for
    no pairs.
    """
    pair_files, text_files = shard_files(folder, "pairs"), shard_files(folder, "texts")
    index = _pair_index(pair_files, rows)
    pairs = len(index["shard"])
    if not pairs:
        raise _no_pairs(folder)
    index |= _text_index(text_files, texts)
    _seal(folder, made_of, index, [*pair_files, *text_files], prompts, pairs)


def finish_comparisons(folder: Path, made_of: dict[str, Any], rows: Comparisons, prompts: list[str]) -> None:
    """Index the shards of pictures, then write the manifest, as `finish` does for pairs.

    A row of which a picture is in no shard was left out. Raises ValueError for no rows.
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
        raise _no_pairs(folder)
    index = {name: np.ascontiguousarray(column[whole]) for name, column in index.items()}
    _seal(folder, made_of, index, files, prompts, int(whole.sum()))


def _no_pairs(folder: Path) -> ValueError:
    return ValueError(f"got no readable pairs for cache {folder}; expected at least one; check the source")


def _seal(
    folder: Path,
    made_of: dict[str, Any],
    index: dict[str, np.ndarray],
    shards: list[Path],
    prompts: list[str],
    pairs: int,
) -> None:
    """Write index, prompts and, last of all, the manifest."""
    with whole_file(folder / "index.safetensors") as path:
        save_file(index, path)
    _write_json(folder / "prompts.json", prompts)
    files = [*shards, folder / "index.safetensors", folder / "prompts.json"]
    manifest = {
        "fingerprint": made_of,
        "pairs": pairs,
        "prompts": len(prompts),
        "files": {path.name: path.stat().st_size for path in files},
    }
    _write_json(folder / MANIFEST, manifest)
    (folder / STARTED).unlink()


def _unfinished(folder: Path) -> dict[str, Any] | None:
    """What a build that died was making; nothing where no shard came of it."""
    file = folder / STARTED
    if not file.is_file() or not any(shard_files(folder, stem) for stem in STEMS):
        return None
    made_of: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return made_of


def _differences(found: dict[str, Any], made_of: dict[str, Any], free: tuple[str, ...]) -> list[str]:
    keys = sorted((found | made_of).keys() - set(free))
    return [key for key in keys if found.get(key) != made_of.get(key)]


def _pair_index(shards: list[Path], rows: Rows) -> dict[str, np.ndarray]:
    """Where each pair lies, its prompt, weight and bucket, in the order the pairs were read."""
    there, place = _find(shards, np.array(rows.keys, dtype=np.int64))
    place = place[there]
    sizes = [read_columns(path, "sizes")[0][:, 0, 0, 4:] for path in shards]
    targets = np.concatenate([np.zeros((0, 2), np.int32), *sizes])[place]
    shard, offset = _places(shards)
    columns = {
        "shard": shard[place],
        "offset": offset[place],
        "prompt": np.array(rows.prompts, dtype=np.int64)[there],
        "weight": np.array(rows.weights, dtype=np.float32)[there],
        "bucket": np.unique(targets, axis=0, return_inverse=True)[1].reshape(-1),
    }
    return {name: np.ascontiguousarray(column) for name, column in columns.items()}


def _text_index(shards: list[Path], keys: list[int]) -> dict[str, np.ndarray]:
    """Where each prompt's embedding lies, by the prompt's number."""
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


def _write_json(path: Path, value: Any) -> None:
    with whole_file(path) as partial:
        partial.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
