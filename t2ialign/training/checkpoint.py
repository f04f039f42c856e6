"""Checkpoints without pickle: safetensors and JSON, written beside, synced and renamed into place.

A folder `checkpoint-000100` holds NAME.safetensors files and `state.json`, which lists every file with its
size and its hash, and carries its own. Only a folder under its final name, whose files all have the listed
size, counts as whole; the hashes are compared when a run resumes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import Optimizer

from rewards import tensor_files
from t2ialign.io.hashes import KEY, digest, fault, is_sealed, sealed

FORMAT = 1
STATE = "state.json"
WRITING = ".writing-"
"""The beginning of the name of a folder that is not whole yet."""
ASIDE = "damaged-"
"""The beginning of the name of a checkpoint that no run resumes from any more."""
NAME = re.compile(r"checkpoint-(\d{6,})")
NEEDED = frozenset({"format", "step", "config", "global_batch", "optimizer"})
"""The keys that a resume reads from a state without hashes."""

Tensors = dict[str, dict[str, Tensor]]
"""File stem -> the tensors in that file."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint, as `load` returns it."""

    step: int
    tensors: Tensors
    meta: dict[str, Any]


def save(
    root: Path,
    step: int,
    tensors: Tensors,
    meta: dict[str, Any],
    *,
    extra: Callable[[Path], object] | None = None,
) -> Path:
    """Write `root/checkpoint-STEP` at once or not at all; `extra` may put more files into the folder.

    Raises OSError, on one line, when the disk is full or refuses; older checkpoints stay.
    """
    final, temporary = path(root, step), root / f"{WRITING}{step:06d}-{os.getpid()}"
    try:
        temporary.mkdir(parents=True)
        for stem, group in tensors.items():
            tensor_files.write(group, temporary / f"{stem}.safetensors")
        if extra is not None:
            extra(temporary)
        files = sorted(temporary.iterdir())
        with ThreadPoolExecutor() as pool:  # while the disk takes them
            hashes = pool.map(digest, files)
            sync(temporary)
            known = dict(zip((p.name for p in files), hashes, strict=True))
        sizes = {p.name: p.stat().st_size for p in files}
        state = sealed({"format": FORMAT, "step": step, "files": sizes, **meta}, STATE, known)
        (temporary / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
        _fsync(temporary / STATE)
        _fsync(temporary)
        if final.exists():
            remove(final)
        temporary.rename(final)
        _fsync(root)
    except (OSError, SafetensorError) as error:
        raise OSError(_no_space(root, step, tensors, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def load(folder: Path) -> Checkpoint:
    """Read a whole checkpoint. Raises ValueError for a folder that is not one."""
    if not is_whole(folder):
        raise ValueError(
            f"got {folder}, which is no whole checkpoint; expected checkpoint-NNNNNN with its {STATE} and "
            "every file listed there; use resume=latest to pick the newest whole one"
        )
    state = _state(folder)
    if state["format"] != FORMAT:
        raise ValueError(
            f"got checkpoint format {state['format']} in {folder}; expected {FORMAT}; "
            f"use t2ialign {state.get('t2ialign')}, which wrote it"
        )
    stems = [Path(name).stem for name in state["files"] if name.endswith(".safetensors")]
    return Checkpoint(state["step"], {s: load_file(folder / f"{s}.safetensors") for s in stems}, state)


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, None if all of it is as it was written; every file is read.

    One of an older version has no hashes: it must name what a resume needs, and its tensors be readable.
    """
    if (torn := _torn(folder)) is not None:
        return torn
    state = _state(folder)
    if not (is_sealed(state, STATE) if KEY in state else state.keys() >= NEEDED):
        return f"{STATE} is not what was written"
    hashes = state.get(KEY, {})
    return next((wrong for name in state["files"] if (wrong := fault(folder / name, hashes.get(name)))), None)


def set_aside(folder: Path) -> Path:
    """Rename a checkpoint so that no run resumes from it -> the new path; an earlier one there is deleted."""
    aside = folder.with_name(f"{ASIDE}{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    return folder.rename(aside)


def is_whole(folder: Path) -> bool:
    """Whether every file that `state.json` lists is there in full; a torn copy is not."""
    return NAME.fullmatch(folder.name) is not None and _torn(folder) is None


def whole(root: Path) -> list[Path]:
    """The whole checkpoints under `root`, oldest first."""
    return [p for p in named(root) if is_whole(p)]


def named(root: Path) -> list[Path]:
    """All folders under `root` that are named like a checkpoint, damaged ones too, oldest first."""
    folders = [p for p in root.glob("checkpoint-*") if NAME.fullmatch(p.name) and p.is_dir()]
    return sorted(folders, key=step_of)


def path(root: Path, step: int) -> Path:
    """The path of the checkpoint of a step, once it is whole."""
    return root / f"checkpoint-{step:06d}"


def step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name."""
    match = NAME.fullmatch(folder.name)
    assert match, f"{folder} is not named like a checkpoint"
    return int(match[1])


def prune(root: Path, limit: int, is_good: Callable[[Path], bool] = lambda _: True) -> None:
    """Keep the newest `limit` whole checkpoints (0 keeps all), and sweep what killed runs left.

    Where none of these is good, the newest one that is stays too.
    """
    there = whole(root)
    older = there[:-limit] if limit else []
    spared = [] if any(map(is_good, there[-limit:])) else [folder for folder in older if is_good(folder)][-1:]
    for folder in older:
        if folder not in spared:
            remove(folder)
    for leftover in [*root.glob(f"{WRITING}*"), *root.glob(".removing-*")]:
        shutil.rmtree(leftover, ignore_errors=True)


def remove(folder: Path) -> None:
    """Delete a checkpoint; renamed first, so that one deleted half is never under a checkpoint's name."""
    doomed = folder.with_name(f".removing-{folder.name}-{os.getpid()}")
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def sync(folder: Path) -> None:
    """Flush every file below `folder`, and the folder, to the disk."""
    for item in [*folder.rglob("*"), folder]:
        _fsync(item)


def pack_optimizer(optimizer: Optimizer, names: list[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Per-parameter state -> tensors called KEY/PARAMETER, and the entries that are plain numbers.

    bitsandbytes keeps its 8-bit moments a level deeper: those are called KEY.INNER/PARAMETER.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            flat = {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
            for label, entry in flat.items():
                target = tensors if isinstance(entry, Tensor) else numbers
                target[f"{label}/{names[index]}"] = entry
    return tensors, numbers


def unpack_optimizer(
    optimizer: Optimizer, names: list[str], tensors: dict[str, Tensor], numbers: dict[str, Any]
) -> None:
    """Undo `pack_optimizer`, in place; learning rate and the like stay what the config says.

    Tensors are copied, since an optimiser keeps what it is given: nothing is to live in the file of a
    checkpoint, which is deleted in time and whose tensors are not aligned as torch's.
    """
    index = {name: i for i, name in enumerate(names)}
    state: dict[int, dict[str, Any]] = {}
    for label, value in [*((label, tensor.clone()) for label, tensor in tensors.items()), *numbers.items()]:
        key, name = label.split("/", 1)
        outer, nested, inner = key.partition(".")
        entries = state.setdefault(index[name], {})
        if nested:
            entries.setdefault(outer, {})[inner] = value
        else:
            entries[outer] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def copy_tensors(source: dict[str, Tensor], target: dict[str, Tensor], folder: Path) -> None:
    """Copy saved weights into live ones. Raises ValueError if names or shapes differ."""
    if {n: t.shape for n, t in source.items()} != {n: t.shape for n, t in target.items()}:
        odd = sorted(source.keys() ^ target.keys()) or sorted(
            n for n in source if source[n].shape != target[n].shape
        )
        raise ValueError(
            f"got weights in {folder} that do not fit the model (first: {odd[0]}); expected the same model, "
            "lora_rank and lora_targets as the run that saved them; restore those settings"
        )
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name])


def _torn(folder: Path) -> str | None:
    try:
        sizes = dict(_state(folder)["files"])
        files = {name: folder / name for name in sizes}
        cut = [n for n, file in files.items() if not file.is_file() or file.stat().st_size != sizes[n]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"{STATE} cannot be read"
    return f"{cut[0]} is missing or cut" if cut else None


def _state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return state


def _no_space(root: Path, step: int, tensors: Tensors, error: Exception) -> str:
    megabytes = sum(t.numel() * t.element_size() for group in tensors.values() for t in group.values()) / 1e6
    last = whole(root)
    advice = (
        f"{last[-1]} is whole, so free space and add resume=latest" if last else "free space and start again"
    )
    reason = " ".join(str(error).split())
    return f"got {reason!r} saving step {step}; expected {megabytes:.1f} MB free in {root}; {advice}"


def _fsync(item: Path) -> None:
    if item.is_file():
        with item.open("r+b") as file:
            os.fsync(file.fileno())
        return
    try:
        descriptor = os.open(item, os.O_RDONLY)
    except PermissionError:  # Windows opens no folder, and flushes what it holds by itself
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
