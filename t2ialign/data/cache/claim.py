"""Decides who may fill a cache folder, and which whole shards of an unfinished or damaged cache stay."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t2ialign.data.cache.ledger import STARTED, write_json
from t2ialign.data.cache.shards import DamagedCache
from t2ialign.data.cache.stored import (
    INDEX,
    MANIFEST,
    PROMPTS,
    damage,
    open_manifest,
    read_manifest,
    shard_hashes,
)
from t2ialign.io.hashes import HASHES, digest, fault, note, noted
from t2ialign.io.locks import LOCK, hold_folder

SHARD = re.compile(r"(pairs|images|texts|pictures)-\d+\.safetensors")
CHOICE = ("contents", "limit", "ties")
"""Settings that say which rows are read, not how they are encoded: an unfinished build may change them."""

log = logging.getLogger(__name__)


@contextmanager
def claimed(folder: Path, made_of: dict[str, Any]) -> Iterator[bool]:
    """Within this block the folder has a finished cache of this make (False), or is ours to fill (True).

    It is locked while it is filled, and a finished one not at all. A build that died before its first shard
    leaves no claim; one that has some goes on, although its rows may have been mended, and so does a finished
    cache that was damaged. Raises ValueError if the folder holds a cache of another make, or anything else,
    or if another run is filling it.
    """
    if _is_finished(folder, made_of):
        yield False
        return
    with hold_folder(folder, "cache ", shared=True):
        unfinished = not _is_finished(folder, made_of)  # another run may have been faster
        if unfinished:
            _take_apart(folder, made_of)
            _start(folder, made_of)
        yield unfinished


def _is_finished(folder: Path, made_of: dict[str, Any]) -> bool:
    """Whether a whole cache of this make is there; a damaged one is not."""
    try:
        manifest = open_manifest(folder)
    except DamagedCache:
        return False
    if manifest is not None:
        _check_make(folder, manifest["fingerprint"], made_of)
    return manifest is not None


def _take_apart(folder: Path, made_of: dict[str, Any]) -> None:
    """Make a damaged cache an unfinished one. Raises ValueError if it is of another make."""
    try:
        manifest = read_manifest(folder)
    except DamagedCache:
        return
    if manifest is None:
        return
    _check_make(folder, manifest["fingerprint"], made_of)
    log.warning("cache %s is damaged (%s): the damaged part is built anew", folder, damage(folder, manifest))
    write_json(folder / STARTED, manifest["fingerprint"])
    for name, value in shard_hashes(manifest).items():
        note(folder, name, value)
    for name in (MANIFEST, INDEX, PROMPTS):
        _remove(folder / name)


def _start(folder: Path, made_of: dict[str, Any]) -> None:
    """Leave only whole shards, and note what is made. Raises ValueError for other files in the folder."""
    earlier = _unfinished(folder)
    if earlier is not None:
        _check_make(folder, earlier, made_of, free=CHOICE)
        _drop_damaged(folder)
    elif not _is_ours(folder):
        raise ValueError(f"got cache folder {folder}, which holds other files; expected an empty one")
    elif _shards(folder):
        log.warning("cache %s is damaged (nothing says what was made): all of it is built anew", folder)
        for path in _all(folder):
            if path.name != LOCK:
                _remove(path)
    write_json(folder / STARTED, made_of)
    for path in folder.glob("*.partial"):
        _remove(path)


def _unfinished(folder: Path) -> dict[str, Any] | None:
    """The settings of a build that died; None where no shard came of it, or no file tells them."""
    file = folder / STARTED
    if not file.is_file() or not _shards(folder):
        return None
    try:
        made_of = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    return made_of if isinstance(made_of, dict) else None


def _is_ours(folder: Path) -> bool:
    """Whether nothing but parts of a cache is there; shards alone, or notes alone, may be somebody's data."""
    names = {path.name for path in _all(folder) if path.suffix != ".partial"} - {LOCK}
    notes = {STARTED, HASHES}
    if shards := {path.name for path in _shards(folder)}:
        notes |= {INDEX, PROMPTS, MANIFEST}
    return names <= shards | notes and (not shards or bool(names & notes))


def _drop_damaged(folder: Path) -> None:
    """Remove shards that have changed since they were written, or, of an older version, cannot be read."""
    hashes = noted(folder)
    for shard in _shards(folder):
        wrong = fault(shard, None if hashes is None else hashes.get(shard.name, ""))
        if wrong is not None:
            log.warning("cache %s is damaged (%s): the damaged part is built anew", folder, wrong)
            _remove(shard)
        elif hashes is None:
            note(folder, shard.name, digest(shard))


def _check_make(
    folder: Path, earlier: dict[str, Any], made_of: dict[str, Any], free: tuple[str, ...] = ()
) -> None:
    keys = sorted((earlier | made_of).keys() - set(free))
    if keys := [key for key in keys if earlier.get(key) != made_of.get(key)]:
        raise ValueError(
            f"got cache {folder} made with {', '.join(f'{key}={earlier.get(key)}' for key in keys)}; "
            f"expected {', '.join(f'{key}={made_of.get(key)}' for key in keys)}; delete it or choose another "
            "folder"
        )


def _remove(path: Path) -> None:
    """Delete a part of a cache, also where a folder stands in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _shards(folder: Path) -> list[Path]:
    return [path for path in _all(folder) if SHARD.fullmatch(path.name)]


def _all(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
