"""The toy world's own training loop: seeded by step, resumable, cosine schedule, a loss log.

Started by `torchrun` it averages gradients over the processes; each then takes its `share` of every batch.
"""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
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
    main = is_main()
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
    _trim(folder / "loss.jsonl", start)
    model.train()
    running = 0.0
    progress = tqdm(
        range(start, steps), initial=start, total=steps, desc=folder.name, mininterval=5, disable=not main
    )
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
        _average_gradients(params)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        if ema is not None:
            rate = min(ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(average, [p.detach() for p in params], 1 - rate)
        running += value.item()
        if (step + 1) % 50 == 0 and main:
            progress.set_postfix(loss=f"{running / 50:.4f}")
            with (folder / "loss.jsonl").open("a") as log:
                log.write(json.dumps({"step": step + 1, "loss": round(running / 50, 6)}) + "\n")
            running = 0.0
        if main and ((step + 1) % SAVE_EVERY == 0 or step + 1 == steps):
            _save(state, model, optimizer, average, step + 1)
    if ema is not None:
        for param, mean in zip(params, average, strict=True):
            param.data.copy_(mean)
    return model.eval()


def _average_gradients(params: list[nn.Parameter]) -> None:
    """Make every process's gradient the mean over all of them, in one message."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in params if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def share(batch: int) -> slice:
    """The rows of a batch that fall to this process."""
    if not dist.is_initialized():
        return slice(0, batch)
    size = batch // dist.get_world_size()
    return slice(dist.get_rank() * size, (dist.get_rank() + 1) * size)


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up over the first 5 %, then cosine to zero."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _trim(log: Path, start: int) -> None:
    """Drop the rows that a killed run logged after its last saved state."""
    rows = log.read_text().splitlines() if log.exists() else []
    log.write_text("".join(row + "\n" for row in rows if json.loads(row)["step"] <= start))


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
