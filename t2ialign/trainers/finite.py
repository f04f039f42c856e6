"""Losses and gradients that are not finite end a run, and the last good checkpoint is named."""

from __future__ import annotations

import math
from collections.abc import Mapping

from t2ialign.trainers import checkpoint
from t2ialign.trainers.output import CHECKPOINTS
from t2ialign.trainers.settings import LoopConfig


def check_finite(row: Mapping[str, float], cfg: LoopConfig, step: int) -> None:
    """Raises FloatingPointError if the loss or the gradient of the update number `step` is not finite."""
    # fp16 gradients may overflow: the loss scale then falls and the update is skipped, by design.
    watched = ("loss",) if cfg.precision == "fp16" else ("loss", "grad_norm")
    for name in watched:
        if not math.isfinite(row[name]):
            last = checkpoint.whole(cfg.output / CHECKPOINTS)[-1:]
            raise FloatingPointError(
                f"got {name} {row[name]} at step {step}; expected a finite number; "
                "lower lr or max_grad_norm, or raise the precision, and add resume=latest: "
                f"{last[0] if last else 'the main process has a checkpoint that'} is good"
            )
