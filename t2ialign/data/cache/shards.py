"""Rows of tensors in safetensors shards: written whole or not at all, read by row from mapped memory."""

import errno
import os
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rewards import tensor_files
from t2ialign.io.hashes import digest, fault, note

OPEN_SHARDS = 128
"""Shards mapped at once by one reader, far below the usual limit of 1,024 open files."""


class DamagedCache(ValueError, OSError):
    """A cache whose files are not as they were written; worth a line on any process, as a full disk is."""


def damaged(folder: Path, wrong: str) -> str:
    """An error about a cache and its remedy, on one line."""
    return (
        f"got cache {folder}, in which {wrong}; expected it as it was built; run the same training again "
        "with resume=latest, which builds anew what is damaged"
    )


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` in one step at the end; no failure leaves a part of it.

    Raises OSError if it cannot be written, for example because the disk is full.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        with partial.open("r+b") as file:  # Windows flushes only what is open for writing
            os.fsync(file.fileno())
        os.replace(partial, path)
    except SafetensorError as error:
        raise OSError(
            errno.EIO, f"cannot write ({error}); free disk space and run again", str(path)
        ) from error
    finally:
        partial.unlink(missing_ok=True)


class ShardWriter:
    """Collects rows by group (one shape each) and writes a shard as soon as `size` rows are held."""

    def __init__(self, folder: Path, stem: str, size: int) -> None:
        self.folder, self.stem, self.size = folder, stem, size
        self.held: dict[Hashable, list[dict[str, Tensor]]] = {}
        self.count = 0
        self.next = 1 + max((int(path.stem.split("-")[1]) for path in shard_files(folder, stem)), default=-1)

    def add(self, rows: dict[str, Tensor], group: Hashable = None) -> None:
        """Take n rows, each value (n, ...). Raises OSError if a shard cannot be written."""
        self.held.setdefault(group, []).append(rows)
        self.count += _length(rows)
        while self.count >= self.size:
            self._write(max(self.held, key=lambda g: sum(map(_length, self.held[g]))))

    def close(self) -> None:
        """Write the rows that are held."""
        for group in list(self.held):
            self._write(group)

    def _write(self, group: Hashable) -> None:
        parts = self.held[group]
        shard = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        name = f"{self.stem}-{self.next:06d}.safetensors"
        with whole_file(self.folder / name) as path:
            tensor_files.write(shard, path)
            note(self.folder, name, digest(path))
        self.next += 1
        self.count -= _length(shard)
        del self.held[group]


class ShardReader:
    """Reads single rows of the shards in a folder; the operating system keeps in memory what it sees fit.

    hashes: file name -> SHA-256, which is compared when a shard is first read.
    """

    def __init__(self, folder: Path, hashes: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.hashes: dict[str, str | None] = dict(hashes or {})
        self._open = lru_cache(maxsize=OPEN_SHARDS)(self._map)
        self._check = cache(self._check_once)

    def row(self, name: str, offset: int) -> dict[str, Tensor]:
        """Row `offset` of every tensor in shard `name`. Raises DamagedCache for a shard that was changed."""
        return {key: tensor[offset] for key, tensor in self._open(name).items()}

    def _check_once(self, name: str) -> None:
        """If one shard is damaged, all such are removed, by which the next build knows what to make again."""
        if (wrong := fault(self.folder / name, self.hashes.get(name))) is None:
            return
        for other, value in (self.hashes | {name: self.hashes.get(name)}).items():
            if fault(self.folder / other, value):
                with suppress(OSError):  # a folder of others, or Windows, where somebody reads it
                    (self.folder / other).unlink(missing_ok=True)
        raise DamagedCache(damaged(self.folder, wrong))

    def _map(self, name: str) -> dict[str, Any]:
        self._check(name)
        file = safe_open(str(self.folder / name), framework="pt")
        return {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (no iterator)


def shard_files(folder: Path, stem: str) -> list[Path]:
    """Whole shards of a stem, in the order they were written."""
    return sorted(folder.glob(f"{stem}-*.safetensors"))


def read_columns(path: Path, *names: str) -> list[np.ndarray]:
    """Whole tensors of a shard, without touching its other ones."""
    with safe_open(str(path), framework="numpy") as file:
        return [file.get_tensor(name) for name in names]


def tensor_shape(path: Path, name: str) -> list[int]:
    """The shape of a tensor of a shard, from its header."""
    with safe_open(str(path), framework="numpy") as file:
        return list(file.get_slice(name).get_shape())


def _length(rows: dict[str, Tensor]) -> int:
    return len(next(iter(rows.values())))
