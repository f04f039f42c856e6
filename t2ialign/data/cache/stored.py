"""The pair cache: latents and text embeddings computed once, read back a batch at a time, no encoder needed.

Layout of a cache folder: pairs-*.safetensors (mean, std (N, V, 2, C, h, w) fp16, V = 2 with mirrored copies,
then winner, loser; sizes (N, V, 2, 6); id, the images' key), texts-*.safetensors (one row per distinct
prompt), prompts.json, index.safetensors, and last of all cache.json: a folder without it is no cache.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from t2ialign.data.cache.shards import DamagedCache, ShardReader, damaged, shard_files, tensor_shape
from t2ialign.diffusion.noise import Key, normal_rows, uniform_rows
from t2ialign.io.hashes import KEY, fault, is_sealed
from t2ialign.models.base import Cond, Policy

MANIFEST, INDEX, PROMPTS = "cache.json", "index.safetensors", "prompts.json"


@dataclass(frozen=True)
class Pairs:
    """A batch of preferences; winner and loser share the prompt, but not SDXL's size conditioning."""

    win: Tensor
    """(B, C, h, w) scaled latents of the preferred image, fp32."""
    lose: Tensor
    """(B, C, h, w) of the other one."""
    cond: Cond
    """The B prompts, without sizes: train on `both`."""
    weight: Tensor
    """(B,) 1, or 1/2 for either order of a tie."""
    sizes: Tensor
    """(B, 2, 6) long, winner then loser: original H, W; crop y, x; target H, W."""

    def to(self, device: torch.device | str) -> "Pairs":
        """The same batch on a device."""
        return self._each(lambda part: part.to(device))

    def rows(self, rows: list[int]) -> "Pairs":
        """Some of the pairs."""
        return self._each(lambda part: part[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Pairs":
        cond = {key: change(value) for key, value in self.cond.items()}
        parts = {name: change(getattr(self, name)) for name in ("win", "lose", "weight", "sizes")}
        return replace(self, cond=cond, **parts)

    def both(self, policy: Policy) -> tuple[Tensor, Cond]:
        """Winners, then losers: latents (2B, C, h, w), and the cond of each with its own image's sizes."""
        cond = {key: torch.cat([value, value]) for key, value in self.cond.items()}
        sizes = self.sizes.transpose(0, 1).flatten(0, 1)
        cond = policy.with_size(cond, original=sizes[:, :2], crop=sizes[:, 2:4], target=sizes[:, 4:])
        return torch.cat([self.win, self.lose]), cond


def cached_widths(folder: Path) -> tuple[int, int] | None:
    """Width of the prompts and channels of the latents in a cache; None where none can be read."""
    try:
        text = tensor_shape(shard_files(folder, "texts")[0], "prompt_embeds")
        latents = tensor_shape(shard_files(folder, "pairs")[0], "mean")
    except (OSError, IndexError, SafetensorError):  # whoever opens it says what is wrong with it
        return None
    return text[-1], latents[-3]


class PairCache:
    """A finished cache, or a part of one (`split`). Pairs are numbered from 0 in the order they were read."""

    def __init__(self, folder: Path) -> None:
        """Open a cache made by `build_cache`. Raises ValueError if unfinished, DamagedCache if damaged."""
        self.folder = Path(folder)
        manifest = open_manifest(self.folder)
        if manifest is None:
            raise ValueError(f"got {folder}, which is no finished pair cache; build it again")
        self.fingerprint: dict[str, Any] = manifest["fingerprint"]
        self.prompts, self._index = read_index(self.folder)
        self._texts = self._index.pop("text_shard"), self._index.pop("text_offset")
        self._reader = ShardReader(self.folder, shard_hashes(manifest))

    def __len__(self) -> int:
        return len(self._index["shard"])

    def prompt(self, index: int) -> str:
        """The prompt of one pair."""
        return self.prompts[self._index["prompt"][index]]

    def split(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """(train, held out): `fraction` of the prompts, at least one, are held out with all their pairs.

        Which ones depends on the seed and the prompts' text alone. Raises ValueError if none is left.
        """
        held = held_out(self._index["prompt"], self.prompts, fraction, seed)
        return self._part(~held), self._part(held)

    def plan(self, seed: int, epoch: int, batch_size: int) -> list[np.ndarray]:
        """The epoch's batches of indices, all full and of one bucket each: len // batch_size of them, or one.

        Deterministic. Buckets get batches in proportion to their pairs on average over epochs, so that every
        pair is drawn equally often however rare its shape; what fills no batch waits for another epoch, and
        a bucket smaller than its batches repeats. Raises ValueError for an empty part.
        """
        if not len(self) or batch_size < 1:
            raise ValueError(
                f"got {len(self)} pairs for batches of {batch_size}; expected at least 1 of each"
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

    def batch(self, indices: Sequence[int] | np.ndarray, keys: Sequence[Key]) -> Pairs:
        """Pairs of one bucket, latents drawn from the VAE's posterior: mean + std * noise, on CPU.

        Row i's draw (and its mirroring, in a cache with mirrored copies) depends on keys[i] alone: put the
        epoch in the key and each epoch draws afresh. Winner and loser are drawn independently.
        """
        assert len(indices) == len(keys) > 0, f"got {len(indices)} indices and {len(keys)} keys"
        rows = [self._pair(int(i)) for i in indices]
        variant = (uniform_rows([(*key, 2) for key in keys]) * len(rows[0]["mean"])).long()
        mean, std, sizes = (
            torch.stack([row[name][v] for row, v in zip(rows, variant, strict=True)])
            for name in ("mean", "std", "sizes")
        )
        noise = normal_rows(mean.shape[2:], [(*key, side) for key in keys for side in (0, 1)])
        win, lose = (mean.float() + std.float() * noise.view(mean.shape)).unbind(1)
        weight = torch.from_numpy(self._index["weight"][np.asarray(indices)])
        return Pairs(win, lose, self._cond(indices), weight, sizes.long())

    def _pair(self, index: int) -> dict[str, Tensor]:
        return self._reader.row(
            f"pairs-{self._index['shard'][index]:06d}.safetensors", int(self._index["offset"][index])
        )

    def _cond(self, indices: Sequence[int] | np.ndarray) -> Cond:
        ids, back = np.unique(self._index["prompt"][np.asarray(indices)], return_inverse=True)
        shards, offsets = self._texts
        rows = [self._reader.row(f"texts-{shards[i]:06d}.safetensors", int(offsets[i])) for i in ids]
        stacked = {key: torch.stack([row[key] for row in rows]) for key in rows[0] if key != "id"}
        cond = {key: value[torch.from_numpy(back)] for key, value in stacked.items()}
        return {key: value.float() if value.is_floating_point() else value for key, value in cond.items()}

    def _part(self, mask: np.ndarray) -> Self:
        part = copy.copy(self)
        part._index = {name: column[mask] for name, column in self._index.items()}
        return part


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
