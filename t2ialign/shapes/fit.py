"""The embedded world's own training loop: seeded by step, resumable, cosine schedule, a loss log."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

SAVE_EVERY = 100


def fit(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    folder: Path,
    *,
    steps: int,
    lr: float,
    weight_decay: float = 0.0,
    ema: float | None = None,
) -> nn.Module:
    """Minimise `loss(step)` over `steps` AdamW steps -> the model (its EMA when asked for), in eval mode.

    `loss` must depend on its step alone. State is written to `folder` every 100 steps, and a killed run
    continues from it; `folder/loss.jsonl` logs the mean loss of every 50 steps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay)
    average = [p.detach().clone() for p in params]
    state, start = folder / "state.pt", 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average, start = saved["average"], saved["step"]
    model.train()
    running = 0.0
    progress = tqdm(range(start, steps), initial=start, total=steps, desc=folder.name, mininterval=5)
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = lr * _schedule(step, steps)
        value = loss(step)
        if not torch.isfinite(value):
            raise FloatingPointError(
                f"got loss {value.item()} at step {step} of {folder.name}; lower the learning rate"
            )
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        if ema is not None:
            rate = min(ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(average, [p.detach() for p in params], 1 - rate)
        running += value.item()
        if (step + 1) % 50 == 0:
            progress.set_postfix(loss=f"{running / 50:.4f}")
            with (folder / "loss.jsonl").open("a") as log:
                log.write(json.dumps({"step": step + 1, "loss": round(running / 50, 6)}) + "\n")
            running = 0.0
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            _save(state, model, optimizer, average, step + 1)
    if ema is not None:
        for param, mean in zip(params, average, strict=True):
            param.data.copy_(mean)
    return model.eval()


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up over the first 5 %, then cosine to zero."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _save(
    file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: list[Tensor], step: int
) -> None:
    part = file.with_suffix(".part")
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average, "step": step},
        part,
    )
    os.replace(part, file)


def rows(seed: int, step: int, batch: int, total: int) -> tuple[Tensor, torch.Generator]:
    """Which `batch` of `total` training rows a step uses, and the generator of that step's noise."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    return torch.randint(total, (batch,), generator=generator), generator
