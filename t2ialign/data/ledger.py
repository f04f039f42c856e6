"""What a cache folder holds, and when it counts as finished: claimed at the start, indexed at the end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from t2ialign.data.shards import read_columns, shard_files, whole_file
from t2ialign.data.stored import MANIFEST, read_manifest

STARTED = "building.json"


def claim(folder: Path, made_of: dict[str, Any]) -> bool:
    """Whether a finished cache of this make lies in the folder; if not, the folder becomes ours to fill.

    Raises ValueError if the folder holds a cache of another make, finished or not, or anything else.
    """
    manifest, started = read_manifest(folder), folder / STARTED
    found = manifest["fingerprint"] if manifest else None
    if not manifest and started.is_file():
        found = json.loads(started.read_text(encoding="utf-8"))
    if found is not None and found != made_of:
        keys = [key for key in sorted(found | made_of) if found.get(key) != made_of.get(key)]
        raise ValueError(
            f"got cache {folder} made with {', '.join(f'{key}={found.get(key)}' for key in keys)}; expected "
            f"{', '.join(f'{key}={made_of.get(key)}' for key in keys)}; delete it or choose another folder"
        )
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(path.suffix != ".partial" for path in folder.iterdir()):
            raise ValueError(f"got cache folder {folder}, which holds other files; expected an empty one")
        _write_json(started, made_of)
    for path in folder.glob("*.partial"):
        path.unlink()
    return manifest is not None


class Numbers:
    """The numbers that a column of a stem's whole shards holds."""

    def __init__(self, folder: Path, stem: str, column: str) -> None:
        parts = [read_columns(path, column)[0] for path in shard_files(folder, stem)]
        self.mask = np.zeros(max((int(part.max()) + 1 for part in parts), default=0), dtype=bool)
        for part in parts:
            self.mask[part] = True

    def __contains__(self, number: int) -> bool:
        return number < len(self.mask) and bool(self.mask[number])


def finish(folder: Path, made_of: dict[str, Any], prompts: list[str]) -> None:
    """Index the shards, then write the manifest: now it is a cache. Raises ValueError for no pairs."""
    pairs, texts = shard_files(folder, "pairs"), shard_files(folder, "texts")
    if not pairs:
        raise ValueError(f"got no readable pairs for cache {folder}; expected at least one; check the source")
    index = _pair_index(pairs) | _text_index(texts)
    assert len(index["text_shard"]) == len(prompts), (
        f"{len(index['text_shard'])} texts, {len(prompts)} prompts"
    )
    with whole_file(folder / "index.safetensors") as path:
        save_file(index, path)
    _write_json(folder / "prompts.json", prompts)
    files = [*pairs, *texts, folder / "index.safetensors", folder / "prompts.json"]
    manifest = {
        "fingerprint": made_of,
        "pairs": len(index["shard"]),
        "prompts": len(prompts),
        "files": {path.name: path.stat().st_size for path in files},
    }
    _write_json(folder / MANIFEST, manifest)
    (folder / STARTED).unlink()


def _pair_index(shards: list[Path]) -> dict[str, np.ndarray]:
    """Where each pair lies, its prompt, weight and bucket, in the order the pairs were read."""
    parts = [read_columns(path, "row", "prompt", "weight", "sizes") for path in shards]
    row, prompt, weight, sizes = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    bucket = np.unique(sizes[:, 0, 0, 4:], axis=0, return_inverse=True)[1]
    shard, offset = _places(shards, [len(part[0]) for part in parts])
    columns = {"shard": shard, "offset": offset, "prompt": prompt, "weight": weight, "bucket": bucket}
    return {name: np.ascontiguousarray(column[np.argsort(row)]) for name, column in columns.items()}


def _text_index(shards: list[Path]) -> dict[str, np.ndarray]:
    """Where each prompt's embedding lies, by the prompt's number."""
    ids = [read_columns(path, "id")[0] for path in shards]
    order = np.argsort(np.concatenate(ids))
    shard, offset = _places(shards, [len(part) for part in ids])
    return {"text_shard": shard[order], "text_offset": offset[order]}


def _places(shards: list[Path], lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(shard number, offset in it) of every row, in the order of the shards."""
    numbers = [int(path.stem.split("-")[1]) for path in shards]
    return np.repeat(numbers, lengths), np.concatenate([np.arange(length) for length in lengths])


def _write_json(path: Path, value: Any) -> None:
    with whole_file(path) as partial:
        partial.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
