"""Finds the weights that a score depends on: processes wait for the gradient of every trained weight."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


def reached(module: nn.Module, score: Tensor) -> dict[str, nn.Parameter]:
    """The trainable weights of `module` that `score` depends on, by their names; the others are frozen.

    Raises ValueError if there are none, or a LoRA is among the others.
    """
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    gradients: Sequence[Tensor | None] = [None] * len(trainable)
    if score.requires_grad:
        gradients = torch.autograd.grad(score.sum(), list(trainable.values()), allow_unused=True)
    used = {n: p for (n, p), grad in zip(trainable.items(), gradients, strict=True) if grad is not None}
    unused = sorted(trainable.keys() - used.keys())
    if not used or any("lora_" in name for name in unused):
        raise ValueError(
            f"got {len(unused)} weights to train on which no score of {type(module).__name__} depends "
            f"(first: {unused[0]}); expected some that are used; set reward, layers or lora_targets"
        )
    for name in unused:
        trainable[name].requires_grad_(False)
    if unused:
        log.info("left as they are, since no score depends on them: %s", ", ".join(unused))
    return used
