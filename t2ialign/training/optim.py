"""The optimiser, and the learning rate as a pure function of the step (so a resume has no state to lose)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from diffusers.optimization import get_scheduler
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from t2ialign.training.log import installed

if TYPE_CHECKING:
    from t2ialign.training.settings import LoopConfig


def make_optimizer(cfg: LoopConfig, parameters: Iterable[Tensor]) -> Optimizer:
    """AdamW, fused, or its 8-bit form. Raises ValueError if that asks for bitsandbytes in vain."""
    options: dict[str, Any] = {
        "lr": cfg.lr,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": cfg.weight_decay,
    }
    if cfg.optimizer == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **options)
    if not installed("bitsandbytes"):
        raise ValueError(
            "got optimizer=adamw8bit without bitsandbytes; expected it installed; "
            'pip install "t2ialign[adamw8bit]", or optimizer=adamw'
        )
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(parameters, **options)


def learning_rate(cfg: LoopConfig) -> Callable[[int], float]:
    """Completed updates -> learning rate of the next one, by the schedules of diffusers."""
    name = "constant_with_warmup" if cfg.lr_schedule == "constant" else cfg.lr_schedule
    carrier = torch.optim.SGD([Parameter(torch.zeros(()))], lr=cfg.lr)
    schedule = get_scheduler(name, carrier, num_warmup_steps=cfg.lr_warmup, num_training_steps=cfg.max_steps)
    factor = schedule.lr_lambdas[0]
    return lambda step: cfg.lr * float(factor(step))
