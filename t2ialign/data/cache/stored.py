"""The cache: latents and text embeddings computed once, read back a batch at a time, no encoder needed.

Layout of a cache folder: STEM-*.safetensors (mean, std (N, V, S, C, h, w) fp16, V = 2 with mirrored copies,
S the images of a row, of pairs winner and loser; sizes (N, V, S, 6); id, the images' key),
texts-*.safetensors (one row per distinct prompt), prompts.json, index.safetensors, and last of all
cache.json: a folder without it is no cache.
"""

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from t2ialign.data.cache.shards import DamagedCache, ShardReader, damaged, shard_files, tensor_shape
from t2ialign.diffusion.noise import Key, normal_rows, uniform_rows
from t2ialign.io.hashes import KEY, fault, is_sealed
from t2ialign.models.base import Cond, Policy

RowsT = TypeVar("RowsT", bound="EncodedRows", covariant=True)
MANIFEST, INDEX, PROMPTS = "cache.json", "index.safetensors", "prompts.json"


@dataclass(frozen=True, kw_only=True)
class EncodedRows:
    """A batch of rows of S images each; those of a row share the prompt, but not SDXL's size conditioning."""

    x_0: Tensor
    """(B, S, C, h, w) scaled latents, fp32."""
    cond: Cond
    """The B prompts, without sizes: train on `stacked`."""
    weight: Tensor
    """(B,) the weight in the loss."""
    sizes: Tensor
    """(B, S, 6) long: original H, W; crop y, x; target H, W."""

    def to(self, device: torch.device | str) -> Self:
        """The same batch on a device."""
        return self._each(lambda part: part.to(device))

    def rows(self, rows: list[int]) -> Self:
        """Some of the rows."""
        return self._each(lambda part: part[rows])

    def with_prompts(self, change: Callable[[Cond], Cond]) -> Self:
        """The rows with their prompts changed, and those that these are set against too."""
        return replace(self, cond=change(self.cond))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        parts = {field.name: _changed(getattr(self, field.name), change) for field in fields(self)}
        return replace(self, **parts)

    def stacked(self, policy: Policy) -> tuple[Tensor, Cond]:
        """First images, then second ones: latents (S B, C, h, w), each with its own image's sizes in cond."""
        sides = self.x_0.shape[1]
        cond = {key: torch.cat([value] * sides) for key, value in self.cond.items()}
        sizes = self.sizes.transpose(0, 1).flatten(0, 1)
        cond = policy.with_size(cond, original=sizes[:, :2], crop=sizes[:, 2:4], target=sizes[:, 4:])
        return self.x_0.transpose(0, 1).flatten(0, 1), cond


def _changed(part: Tensor | Cond, change: Callable[[Tensor], Tensor]) -> Any:
    return change(part) if isinstance(part, Tensor) else {key: change(value) for key, value in part.items()}


@dataclass(frozen=True, kw_only=True)
class Pairs(EncodedRows):
    """A batch of preferences: S is 2, and the weight 1, or 1/2 for either order of a tie."""

    preference: Tensor
    """(B,) the winner's share of the labels: 1, or 1/2 for a tie that is there once."""
    margin: Tensor
    """(B,) how much better the winner is; NaN where nothing says so."""

    @property
    def win(self) -> Tensor:
        """(B, C, h, w) of the preferred image."""
        return self.x_0[:, 0]

    @property
    def lose(self) -> Tensor:
        """(B, C, h, w) of the other one."""
        return self.x_0[:, 1]


def cached_widths(folder: Path, stem: str) -> tuple[int, int] | None:
    """Width of the prompts and channels of the latents in a cache; None where none can be read."""
    try:
        text = tensor_shape(shard_files(folder, "texts")[0], "prompt_embeds")
        latents = tensor_shape(shard_files(folder, stem)[0], "mean")
    except (OSError, IndexError, SafetensorError):  # whoever opens it says what is wrong with it
        return None
    return text[-1], latents[-3]


class EncodedCache(ABC, Generic[RowsT]):
    """A finished cache, or a part of one (`split`). Rows are numbered from 0 in the order they were read."""

    stem: ClassVar[str]
    """The name of its shards."""
    unit: ClassVar[str]
    """What a row is called in messages."""
    made_of: ClassVar[Mapping[str, str]] = {}
    """What tells it from a cache of another kind of the same source."""

    def __init__(self, folder: Path) -> None:
        """Open a cache made by `build_cache`. Raises ValueError if unfinished, DamagedCache if damaged."""
        self.folder = Path(folder)
        manifest = open_manifest(self.folder)
        if manifest is None:
            raise ValueError(f"got {folder}, which is no finished {self.unit} cache; build it again")
        self.fingerprint: dict[str, Any] = manifest["fingerprint"]
        self.prompts, self._index = read_index(self.folder)
        self._texts = self._index.pop("text_shard"), self._index.pop("text_offset")
        self._reader = ShardReader(self.folder, shard_hashes(manifest))

    def __len__(self) -> int:
        return len(self._index["shard"])

    def prompt(self, index: int) -> str:
        """The prompt of one row."""
        return self.prompts[self._index["prompt"][index]]

    def split(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """(train, held out): `fraction` of the prompts, at least one, are held out with all their rows.

        Which ones depends on the seed and the prompts' text alone. Raises ValueError if none is left.
        """
        held = held_out(self._index["prompt"], self.prompts, fraction, seed)
        return self._part(~held), self._part(held)

    def plan(self, seed: int, epoch: int, batch_size: int) -> list[np.ndarray]:
        """The epoch's batches of indices, all full and of one bucket each: len // batch_size of them, or one.

        Deterministic. Buckets get batches in proportion to their rows on average over epochs, so that every
        row is drawn equally often however rare its shape; what fills no batch waits for another epoch, and
        a bucket smaller than its batches repeats. Raises ValueError for an empty part.
        """
        if not len(self) or batch_size < 1:
            raise ValueError(
                f"got {len(self)} {self.unit}s for batches of {batch_size}; expected at least 1 of each"
            )
        rng = np.random.default_rng((seed, epoch))
        total, bucket = max(1, len(self) // batch_size), self._index["bucket"]
        members = [np.flatnonzero(bucket == b) for b in np.unique(bucket)]
        # Systematic sampling, in integers: bucket b gets total * len(b) / len batches, rounded up or down.
        edges = (np.cumsum([len(m) for m in members]) * total + rng.integers(len(self))) // len(self)
        batches: list[np.ndarray] = []
        for rows, count in zip(members, np.diff(edges, prepend=0), strict=True):
            batches += list(np.resize(rng.permutation(rows), (count, batch_size)))
        return [batches[i] for i in rng.permutation(len(batches))]

    @abstractmethod
    def batch(self, indices: Sequence[int] | np.ndarray, keys: Sequence[Key]) -> RowsT:
        """Rows of one bucket, latents drawn from the VAE's posterior: mean + std * noise, on CPU.

        Row i's draw (and its mirroring, in a cache with mirrored copies) depends on keys[i] alone: put the
        epoch in the key and each epoch draws afresh. The images of a row are drawn independently.
        """

    def column(self, name: str) -> np.ndarray:
        """A number of every row, such as "weight"; (N,)."""
        return self._index[name]

    def drawn(self, indices: Sequence[int] | np.ndarray, keys: Sequence[Key]) -> dict[str, Any]:
        """The fields that all batches have, as `batch` says."""
        assert len(indices) == len(keys) > 0, f"got {len(indices)} indices and {len(keys)} keys"
        rows = [self._row(int(i)) for i in indices]
        variant = (uniform_rows([(*key, 2) for key in keys]) * len(rows[0]["mean"])).long()
        mean, std, sizes = (
            torch.stack([row[name][v] for row, v in zip(rows, variant, strict=True)])
            for name in ("mean", "std", "sizes")
        )
        each = range(mean.shape[1])
        noise = normal_rows(mean.shape[2:], [(*key, side) for key in keys for side in each])
        x_0, weight = mean.float() + std.float() * noise.view(mean.shape), self.chosen("weight", indices)
        cond = self.texts(self._index["prompt"][np.asarray(indices)])
        return {"x_0": x_0, "cond": cond, "weight": weight, "sizes": sizes.long()}

    def chosen(self, name: str, indices: Sequence[int] | np.ndarray) -> Tensor:
        """A number of some rows (B,)."""
        return torch.from_numpy(self._index[name][np.asarray(indices)])

    def texts(self, numbers: np.ndarray) -> Cond:
        """Prompts by their numbers (B,), without sizes."""
        ids, back = np.unique(numbers, return_inverse=True)
        shards, offsets = self._texts
        rows = [self._reader.row(f"texts-{shards[i]:06d}.safetensors", int(offsets[i])) for i in ids]
        stacked = {key: torch.stack([row[key] for row in rows]) for key in rows[0] if key != "id"}
        cond = {key: value[torch.from_numpy(back)] for key, value in stacked.items()}
        return {key: value.float() if value.is_floating_point() else value for key, value in cond.items()}

    def _row(self, index: int) -> dict[str, Tensor]:
        return self._reader.row(
            f"{self.stem}-{self._index['shard'][index]:06d}.safetensors", int(self._index["offset"][index])
        )

    def _part(self, mask: np.ndarray) -> Self:
        part = copy.copy(self)
        part._index = {name: column[mask] for name, column in self._index.items()}
        return part


LABELS = {"preference": 1.0, "margin": float("nan")}
"""The labels of a pair, and what they are where nothing says so."""


class PairCache(EncodedCache[Pairs]):
    """Pairs of images, winner and loser."""

    stem, unit = "pairs", "pair"

    def batch(self, indices: Sequence[int] | np.ndarray, keys: Sequence[Key]) -> Pairs:
        """Pairs of one bucket, as `EncodedCache.batch` says."""
        preference, margin = (torch.from_numpy(self.label(name)[np.asarray(indices)]) for name in LABELS)
        return Pairs(preference=preference, margin=margin, **self.drawn(indices, keys))

    def label(self, name: str) -> np.ndarray:
        """The preference or the margin of every pair, (N,); a cache of an older version has neither."""
        absent = np.full(len(self), LABELS[name], np.float32)
        return self.column(name) if name in self._index else absent


def held_out(numbers: np.ndarray, prompts: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """Of N rows with those prompt numbers, which are held out (N,) bool: all of `fraction` of the prompts.

    At least one prompt, unless the fraction is 0; which ones depends on the seed and the prompts' text alone.
    Raises ValueError if none is left.
    """
    ids = np.unique(numbers)
    count = max(1, round(fraction * len(ids))) if fraction > 0 else 0
    if not 0 <= fraction < 1 or count >= len(ids):
        raise ValueError(
            f"got {len(ids)} distinct prompts to hold out a fraction {fraction:g} of; expected one from "
            "0 to below 1 that leaves prompts to train on; lower it or add prompts"
        )
    order = sorted(ids, key=lambda i: hashlib.blake2b(f"{seed} {prompts[i]}".encode()).digest())
    return np.isin(numbers, np.asarray(order[:count], dtype=ids.dtype))


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The content of cache.json, or None for an unfinished cache. Raises DamagedCache if it was changed."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest: Any = json.loads(path.read_text(encoding="utf-8"))
        whole = all(isinstance(manifest[key], dict) for key in ("fingerprint", "files"))
        whole = whole and is_sealed(manifest, MANIFEST)
    except (ValueError, TypeError, KeyError, RecursionError):
        whole = False
    if not whole:
        raise DamagedCache(damaged(folder, f"{MANIFEST} is not what was written"))
    return dict(manifest)


def open_manifest(folder: Path) -> dict[str, Any] | None:
    """The same, after a look at every file. Raises DamagedCache as well if one is not what was written."""
    manifest = read_manifest(folder)
    if manifest is not None and (wrong := damage(folder, manifest)):
        raise DamagedCache(damaged(folder, wrong))
    return manifest


def read_index(folder: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """The prompts and the columns of a finished cache. Raises DamagedCache if they cannot be read."""
    try:
        return list(json.loads((folder / PROMPTS).read_text(encoding="utf-8"))), load_file(folder / INDEX)
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise DamagedCache(damaged(folder, f"{PROMPTS} or {INDEX} cannot be read")) from error


def shard_hashes(manifest: dict[str, Any]) -> dict[str, str]:
    """Shard -> SHA-256; none in a cache of an older version."""
    others = (INDEX, PROMPTS, MANIFEST)
    return {name: value for name, value in manifest.get(KEY, {}).items() if name not in others}


def damage(folder: Path, manifest: dict[str, Any]) -> str | None:
    """The damage of a cache, None without any: shards are judged by size, the rest by content."""
    for name, size in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return f"{name} is missing or cut"
        if name in (INDEX, PROMPTS) and (wrong := fault(path, manifest.get(KEY, {}).get(name))):
            return wrong
    return None
