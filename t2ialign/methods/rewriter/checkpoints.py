"""The checkpoints that TRL writes of a rewriter, and the hashes that tell which ones are whole."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rewards import tensor_files
from t2ialign.io.hashes import KEY, digest, fault, is_sealed, sealed
from t2ialign.training import checkpoint
from t2ialign.training.output import CHECKPOINTS, newest_whole
from t2ialign.training.watch.finite import are_within

NAME = "checkpoint-"
LAST = "trainer_state.json"
"""The file that transformers writes last into a checkpoint, which it fills in place."""
LARGEST = 1e6
"""Weights beyond this are those of a run that diverged."""
HASHES = "hashes.json"
"""The file that this project adds to it then."""

log = logging.getLogger(__name__)


def whole_checkpoint(output: Path) -> Path | None:
    """The newest checkpoint below output/checkpoints that is as it was written; None if there is none.

    Damaged ones are warned of. Raises ValueError if there are only such.
    """
    whole = (folder for folder in reversed(checkpoints(output)) if not _is_torn(folder))
    return newest_whole(whole, output / CHECKPOINTS, damage)


def damage(folder: Path) -> str | None:
    """The damage of a checkpoint, None without any; without hashes, its tensors must be readable."""
    files = dict.fromkeys((file.name for file in folder.glob("*.safetensors")), None)
    if (folder / HASHES).exists():
        recorded = _read(folder / HASHES)
        if recorded is None or KEY not in recorded or not is_sealed(recorded, HASHES):
            return f"{HASHES} is not what was written"
        files = {name: value for name, value in recorded[KEY].items() if name != HASHES}
    return next((wrong for name, value in files.items() if (wrong := fault(folder / name, value))), None)


def check_finite(logs: Mapping[str, Any], output: Path, step: int) -> None:
    """Raises FloatingPointError if a loss or a gradient is not finite; it names a checkpoint that is good."""
    odd = [name for name in ("loss", "grad_norm") if not math.isfinite(logs.get(name, 0.0))]
    if not odd:
        return
    there = [folder for folder in checkpoints(output) if not _is_torn(folder) and damage(folder) is None]
    good = [folder for folder in there if are_within(folder.glob("*.safetensors"), LARGEST)][-1:]
    whence = f", from model={good[0]}, which is good" if good else "; no checkpoint is good"
    raise FloatingPointError(
        f"got {odd[0]} {logs[odd[0]]} at step {step}; expected a finite number; start anew in another output "
        f"with a lower lr{whence}"
    )


def drop_after(output: Path, resumed: Path | None) -> None:
    """Remove what a kill left torn past the checkpoint to go on from, and set aside what is damaged."""
    if os.environ.get("RANK", "0") != "0":
        return
    for folder in checkpoints(output):
        if resumed is not None and step_of(folder) <= step_of(resumed):
            continue
        if _is_torn(folder):
            shutil.rmtree(folder)
        else:
            log.warning("%s is kept as %s", folder, checkpoint.set_aside(folder).name)


def seal(folder: Path) -> None:
    """Flush a checkpoint that has just been written to the disk, and add the hashes of its files."""
    tensor_files.settle(folder)
    checkpoint.sync(folder)
    files = sorted(file for file in folder.iterdir() if file.is_file())
    text = json.dumps(sealed({}, HASHES, {file.name: digest(file) for file in files}), indent=1)
    scratch = folder / f".{HASHES}"
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(folder / HASHES)


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Within this block what torch, safetensors or tokenizers raise when they cannot write is an OSError."""
    try:
        yield
    except Exception as error:
        words = ("PytorchStreamWriter failed", "unexpected pos", "os error", "file write failed")
        if isinstance(error, OSError) or not any(text in str(error) for text in words):
            raise
        raise OSError(
            f"got {' '.join(str(error).split())!r} writing to {output}; expected free disk space, and no "
            "folders in the place of files; mend it, and add resume=latest"
        ) from error


def _is_torn(folder: Path) -> bool:
    """Whether a kill left it before its last file was written."""
    return not (folder / HASHES).exists() and _read(folder / LAST) is None


def _read(file: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def checkpoints(output: Path) -> list[Path]:
    """The checkpoints from the oldest to the newest, damaged ones too."""
    named = (output / CHECKPOINTS).glob(f"{NAME}*")
    return sorted((f for f in named if f.name.removeprefix(NAME).isdecimal() and f.is_dir()), key=step_of)


def step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name."""
    return int(folder.name.removeprefix(NAME))
