"""Losses, gradients and weights that are not finite end a run, and the last good checkpoint is named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import load_file
from torch import Tensor

from t2ialign.training import checkpoint
from t2ialign.training.log import METRICS, read_rows
from t2ialign.training.output import CHECKPOINTS, log
from t2ialign.training.settings import LoopConfig

EXPLODED, FIRST = 100, 10
"""A loss has exploded at this multiple of its median over the first steps (at least 1), and their number."""
LARGEST = 1e3
"""The size of a weight beyond which a run has diverged, whatever its loss was a step earlier."""


def check_finite(row: Mapping[str, float], cfg: LoopConfig, step: int, *, main: bool) -> None:
    """Raises FloatingPointError if the loss or the gradient of the update number `step` is not finite.

    The main process then sets aside what is no good checkpoint, so that resume=latest finds one that is.
    """
    # fp16 gradients may overflow: the loss scale then falls and the update is skipped, by design.
    watched = ("loss",) if cfg.precision == "fp16" else ("loss", "grad_norm")
    for name in watched:
        if not math.isfinite(row[name]):
            what = f"{name} {row[name]} at step {step}"
            raise _diverged(what, cfg.output, main=main, latest={step: row["loss"]})


def check_weights(weights: Mapping[str, Tensor], cfg: LoopConfig, step: int) -> None:
    """The same for the weights after `step` updates, on the main process: such ones are never saved."""
    if odd := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise _diverged(f"weights that are not finite after step {step} ({odd[0]})", cfg.output, main=True)


def not_exploded(output: Path, latest: Mapping[int, float] | None = None) -> Callable[[Path], bool]:
    """Whether the loss was sound when a checkpoint was written and in the step after.

    Losses are those of metrics.jsonl, and `latest`, by step, which are not in it.
    """
    rows = read_rows(output / METRICS)
    losses = {int(row["step"]): abs(row["loss"]) for row in rows if not math.isnan(row.get("loss", math.nan))}
    losses |= {step: abs(loss) for step, loss in (latest or {}).items() if not math.isnan(loss)}
    first = [loss for loss in losses.values() if math.isfinite(loss)][:FIRST]
    most = EXPLODED * max(1.0, median(first)) if first else math.inf

    def sound(folder: Path) -> bool:
        step = checkpoint.step_of(folder)
        around = [losses.get(at, 0.0) for at in (step, step + 1)]
        return all(math.isfinite(loss) and loss <= most for loss in around)

    return sound


def last_good(output: Path, latest: Mapping[int, float] | None = None) -> Path | None:
    """The newest checkpoint with finite weights whose loss had not exploded; newer ones are set aside."""
    sound = not_exploded(output, latest)
    for folder in reversed(checkpoint.whole(output / CHECKPOINTS)):
        files = [file for stem in ("weights", "ema") if (file := folder / f"{stem}.safetensors").is_file()]
        largest = LARGEST if checkpoint.step_of(folder) else torch.finfo(torch.float32).max  # not trained yet
        if sound(folder) and checkpoint.damage(folder) is None and are_within(files, largest):
            return folder
        log.warning(
            "%s is not good (its loss had exploded, or its weights are not finite); it is kept as %s",
            folder,
            checkpoint.set_aside(folder).name,
        )
    return None


def are_within(files: Iterable[Path], largest: float) -> bool:
    """Whether no number in some files of weights is larger than that, or NaN."""
    tensors = (tensor for file in files for tensor in load_file(file).values())
    return all(bool((tensor.abs() <= largest).all()) for tensor in tensors if tensor.is_floating_point())


def _diverged(
    what: str, output: Path, *, main: bool, latest: Mapping[int, float] | None = None
) -> FloatingPointError:
    good = last_good(output, latest) if main else "the main process has a checkpoint that"
    advice = (
        f"lower lr or max_grad_norm, or raise the precision, and add resume=latest: {good} is good"
        if good
        else "no checkpoint is good: start anew in another output, with a lower lr or max_grad_norm, or a "
        "higher precision"
    )
    return FloatingPointError(f"got {what}; expected a finite number; {advice}")
