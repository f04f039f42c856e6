"""The output folder: whether a run may use it, and which checkpoint it continues."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from t2ialign import peers
from t2ialign.io.locks import check_free
from t2ialign.training import checkpoint
from t2ialign.training.log import METRICS
from t2ialign.training.settings import LoopConfig

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
REUSABLE = ("cache", "config.yaml", ".config.yaml.part", "logs", "prompts", "wandb")
"""Files that a run may leave behind when it dies before its first checkpoint; the next run uses them."""


def resume_point(cfg: LoopConfig) -> Path | None:
    """The checkpoint to continue, or None for a fresh start, which resume=latest is before the first one.

    A damaged checkpoint is warned of, and the one before it taken. Raises ValueError if a fresh start would
    mix with files that are there, if no checkpoint is whole, or if resuming an older one would leave newer
    ones beside it.
    """
    root = cfg.output / CHECKPOINTS
    if cfg.resume is None:
        check_unused(cfg.output)
        return None
    if cfg.resume != "latest":
        return _check_newest(Path(cfg.resume), root)
    if newest := newest_whole(reversed(checkpoint.named(root)), root, checkpoint.damage):
        return newest
    check_unused(cfg.output, "resume=latest found no checkpoint in it to continue, so ")
    log.info("got resume=latest, and %s holds no checkpoint yet: starting from the beginning", cfg.output)
    return None


def newest_whole(folders: Iterable[Path], root: Path, damage: Callable[[Path], str | None]) -> Path | None:
    """The first of the checkpoints in `root`, the newest first, that is as it was written; None of none.

    damage: what is wrong with one, if anything. Damaged ones are warned of. Raises ValueError if all are.
    """
    faults: list[tuple[Path, str]] = []
    for folder in folders:
        if (wrong := damage(folder)) is None:
            for damaged, why in faults:
                log.warning("%s is damaged (%s): this run goes on from %s", damaged, why, folder.name)
            return folder
        faults.append((folder, wrong))
    if faults:
        raise ValueError(
            f"got resume=latest, but no checkpoint in {root} is whole ({faults[0][0].name}: {faults[0][1]}); "
            "expected one to continue; restore one from a copy, or start anew in another output"
        )
    return None


def check_same_run(saved: dict[str, Any], cfg: LoopConfig, global_batch: int) -> None:
    """Raises ValueError if `cfg` differs from the checkpoint's settings in anything that changes the run."""
    new = json.loads(cfg.model_dump_json())
    old = peers.updated_settings(new, saved["config"])
    for key in sorted(set(new) - cfg.FREE):
        if key in old and old[key] != new[key]:  # a key that did not exist then had its default
            raise ValueError(
                f"got {key}={new[key]!r} on resume; expected {old[key]!r}, as in the checkpoint; "
                "restore it, or start anew in another output"
            )
    if saved["global_batch"] != global_batch:
        raise ValueError(
            f"got a global batch of {global_batch} rows on resume; expected {saved['global_batch']}; "
            "choose batch_size x accumulate x processes to give that"
        )


def check_same_model(saved: Mapping[str, str] | None, model: Mapping[str, str] | None) -> None:
    """Raises ValueError if both models were handed over, in one precision, and have other weights."""
    if saved and model and saved["precision"] == model["precision"] and saved["weights"] != model["weights"]:
        raise ValueError(
            "got a model of other weights on resume; expected those that the run began with; load that model "
            "again and pass it, or start anew in another output"
        )


def check_unused(output: Path, advice: str = "add resume=latest to continue that run, or ") -> None:
    """Raises ValueError, with that advice, if a fresh start would mix with files that are there."""
    check_free(output, "output=", advice=advice, passing=replaceable)


def replaceable(item: Path) -> bool:
    """Whether a run may start over this: nothing was trained or measured for it."""
    if item.stem == Path(METRICS).stem:  # with the name of its scratch file
        return item.stat().st_size == 0
    if item.name == CHECKPOINTS:
        return item.is_dir() and all(p.name.startswith(checkpoint.WRITING) for p in item.iterdir())
    return item.name in REUSABLE


def set_aside_after(output: Path, step: int) -> None:
    """Rename damaged checkpoints that were passed over for that of `step`; no resume finds them then."""
    for folder in checkpoint.named(output / CHECKPOINTS):
        if checkpoint.step_of(folder) > step:
            log.warning("%s is kept as %s", folder, checkpoint.set_aside(folder).name)


def _check_newest(folder: Path, root: Path) -> Path:
    if (wrong := checkpoint.damage(folder)) is not None:
        advice = f"{wrong}: use resume=latest" if folder.is_dir() else "check the path"
        raise ValueError(f"got resume={folder}; expected latest or a whole checkpoint folder; {advice}")
    if folder.resolve().parent != root.resolve():
        check_unused(root.parent)
        return folder
    after = [p for p in checkpoint.whole(root) if checkpoint.step_of(p) > checkpoint.step_of(folder)]
    newer = [p.name for p in after if checkpoint.damage(p) is None]
    if newer:
        raise ValueError(
            f"got resume={folder}, but {newer[-1]} is newer; expected the newest, or a new output to "
            "branch into; use resume=latest, or choose another output"
        )
    return folder
