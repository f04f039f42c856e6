"""The toy world's own training loop: seeded by step, resumable, in bfloat16 where the processor has it.

Started by `torchrun` it averages gradients over the processes; each then takes its `share` of every batch.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

SAVE_EVERY, LOG_EVERY = 250, 50


@dataclass(frozen=True)
class Plan:
    """How long and how fast a network is trained.

    The learning rate rises over the first `warmup` of the steps and falls to zero, along a cosine, over the
    last `decay`, both shares of `steps`: a stage that another one continues has decay 0.
    """

    steps: int
    lr: float
    weight_decay: float = 0.0
    warmup: float = 0.05
    decay: float = 0.95
    ema: float | None = None

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rise, fall = max(1, int(self.steps * self.warmup)), self.steps - round(self.steps * self.decay)
        if step < rise:
            return self.lr * (step + 1) / rise
        if step < fall:
            return self.lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - fall) / max(1, self.steps - fall)))


def fit(model: nn.Module, loss: Callable[[int], Tensor], folder: Path, plan: Plan) -> nn.Module:
    """Minimise `loss(step)` by AdamW -> the model in fp32 (its moving average, if planned), in eval mode.

    `loss` must depend on its step alone, and computes in the precision that it meets in `model`. State is
    written to `folder` every 250 steps, and a killed run continues from it; `folder/loss.jsonl` logs the mean
    loss of every 50 steps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    learner = _Learner(model, plan)
    start = learner.load(folder / "state.pt")
    _trim(folder / "loss.jsonl", start)
    model.train()
    running, main = 0.0, is_main()
    progress = tqdm(
        range(start, plan.steps),
        initial=start,
        total=plan.steps,
        desc=folder.name,
        mininterval=5,
        disable=not main,
    )
    for step in progress:
        value = loss(step)
        if not torch.isfinite(value):
            raise FloatingPointError(
                f"got loss {value.item()} at step {step} of {folder.name}; lower the learning rate"
            )
        value.backward()
        learner.update(step)
        running += value.item()
        if (step + 1) % LOG_EVERY == 0 and main:
            progress.set_postfix(loss=f"{running / LOG_EVERY:.4f}")
            with (folder / "loss.jsonl").open("a") as log:
                log.write(json.dumps({"step": step + 1, "loss": round(running / LOG_EVERY, 6)}) + "\n")
            running = 0.0
        if main and ((step + 1) % SAVE_EVERY == 0 or step + 1 == plan.steps):
            learner.save(folder / "state.pt", step + 1)
    learner.finish()
    return model.float().eval()


class _Learner:
    """The fp32 weights that AdamW moves; the model computes with their copy in `fast_dtype()`."""

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self.plan = plan
        self.params = [p for p in model.parameters() if p.requires_grad]
        self.weights = [p.detach().float().clone() for p in self.params]
        self.average = [weight.clone() for weight in self.weights]
        self.optimizer = torch.optim.AdamW(
            self.weights, lr=plan.lr, weight_decay=plan.weight_decay, betas=(0.9, 0.99), fused=True
        )
        model.to(fast_dtype())

    def update(self, step: int) -> None:
        """One step on the gradients of the model, averaged over the processes and clipped to norm 1."""
        self._take_gradients()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(step)
        self.optimizer.step()
        if self.plan.ema is not None:
            decay = min(self.plan.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.average, self.weights, 1 - decay)
        self._show(self.weights)

    def _take_gradients(self) -> None:
        """Move the gradients to the fp32 weights, the mean over all processes, in one message."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.params]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        if dist.is_initialized():
            dist.all_reduce(flat)
            flat /= dist.get_world_size()
        parts = flat.float().split([weight.numel() for weight in self.weights])
        for param, weight, part in zip(self.params, self.weights, parts, strict=True):
            param.grad, weight.grad = None, part.view_as(weight)

    @torch.no_grad()
    def _show(self, weights: list[Tensor]) -> None:
        for param, weight in zip(self.params, weights, strict=True):
            param.copy_(weight)

    def finish(self) -> None:
        """Put the final weights into the model, in fp32."""
        for param, weight in zip(self.params, self._final(), strict=True):
            param.data = weight.clone()

    def _final(self) -> list[Tensor]:
        return self.weights if self.plan.ema is None else self.average

    def save(self, file: Path, step: int) -> None:
        """Write all that a killed run goes on from, in one move."""
        part = file.with_suffix(".part")
        state = {"optimizer": self.optimizer.state_dict(), "step": step}
        torch.save({**state, "weights": self.weights, "average": self.average}, part)
        os.replace(part, file)

    def load(self, file: Path) -> int:
        """Go on from a file, if there is one -> the first step to take."""
        if not file.exists():
            return 0
        saved = torch.load(file, weights_only=True)
        self.optimizer.load_state_dict(saved["optimizer"])
        for name in ("weights", "average"):
            for tensor, value in zip(getattr(self, name), saved[name], strict=True):
                tensor.copy_(value)  # in place: the optimizer holds these very tensors
        self._show(self.weights)
        return int(saved["step"])


def fast_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it natively, at about twice the speed, else fp32."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def share(batch: int) -> slice:
    """The rows of a batch that fall to this process."""
    if not dist.is_initialized():
        return slice(0, batch)
    size = batch // dist.get_world_size()
    return slice(dist.get_rank() * size, (dist.get_rank() + 1) * size)


def _trim(log: Path, start: int) -> None:
    """Drop the rows that a killed run logged after its last saved state."""
    rows = log.read_text().splitlines() if log.exists() else []
    log.write_text("".join(row + "\n" for row in rows if json.loads(row)["step"] <= start))


def rows(seed: int, step: int, batch: int, total: int) -> tuple[Tensor, torch.Generator]:
    """Which `batch` of `total` training rows a step uses, and the generator of that step's noise."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    return torch.randint(total, (batch,), generator=generator), generator
