"""python scripts/bench_backprop.py [--device cuda] [--steps 50] [-o bench.json]

What truncation saves in reward back-propagation, on the toy model with recomputed steps, one training
step a side, all sides in turn: the figure is the median over the rounds of the ratio of one round. Memory is
the bytes kept for the backward pass (of all rows, weights left out), counted and not timed.

  full       every step records (DRaFT, AlignProp's fixed K = T)
  uniform    the last K, the K of an average draw from 1 .. T
  last       the last step alone (DRaFT-1, AlignProp K = 1)
  thrown     every step records, then all but the last are detached: the pattern of the released code
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from scripts.bench_parts import Row, kept_bytes, machine, ratio, rounds, say, table, write
from t2ialign.diffusion.backprop import Plan, differentiable_sample
from t2ialign.diffusion.kernels import ODE
from t2ialign.io.paths import path
from t2ialign.methods.backprop.trainer import Batch, Config, Trainer


def steps(trainer: Trainer) -> dict[str, Callable[[], Tensor]]:
    """Each side's loss, with its graph."""
    batch, total = trainer.batch(0, 0), trainer.cfg.num_inference_steps
    middle = (total + 1) // 2  # the mean of K ~ U(1, T)

    def last(k: int) -> Callable[[], Tensor]:
        plan = Plan(tuple(i >= total - k for i in range(total)))
        return lambda: score(trainer, sampled(trainer, batch, plan, recompute=True))

    def thrown() -> Tensor:
        return score(trainer, recorded_and_detached(trainer, batch))

    return {"full": last(total), "uniform": last(middle), "last": last(1), "thrown": thrown}


def sampled(trainer: Trainer, batch: Batch, plan: Plan, *, recompute: bool) -> Tensor:
    """x_0 of the batch by a plan."""
    x_T = torch.randn(len(batch.numbers), *trainer.shape, generator=torch.Generator().manual_seed(0))
    x_0, _ = differentiable_sample(
        trainer.policy,
        batch.cond,
        x_T.to(trainer.policy.device),
        trainer.times,
        plan,
        kernel=ODE,
        guidance_scale=trainer.cfg.guidance_scale,
        recompute=recompute,
    )
    return x_0


def recorded_and_detached(trainer: Trainer, batch: Batch) -> Tensor:
    """As `last`, but each output is recorded (and checkpointed) before all but the last are detached."""
    policy, times = trainer.policy, trainer.times.to(trainer.policy.device)
    x = torch.randn(len(batch.numbers), *trainer.shape, generator=torch.Generator().manual_seed(0))
    x = x.to(policy.device)
    for i in range(len(times) - 1):
        t, s = times[i].expand(len(x)), times[i + 1].expand(len(x))
        out = checkpoint(
            policy.guided,
            x,
            t,
            batch.cond,
            trainer.cfg.guidance_scale,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        x = policy.transition(out if i == len(times) - 2 else out.detach(), x, t, s, kernel=ODE).mean
    return x


def step(loss: Callable[[], Tensor]) -> None:
    """A training step but for the optimiser's."""
    loss().backward()


def score(trainer: Trainer, x_0: Tensor) -> Tensor:
    """The mean loss of its images."""
    images = trainer.policy.decode(x_0)
    return -trainer.reward(images, ["a red circle"] * len(images)).mean()


def main(argv: list[str] | None = None) -> int:
    """The command line; returns 0 whatever the verdicts are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--steps", type=int, default=50, help="The number T of denoising steps (default: 50)."
    )
    parser.add_argument(
        "--rows", type=int, default=8, help="The number of images per training step (default: 8)."
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="The number of timed rounds after a first one (default: 5)."
    )
    parser.add_argument("-o", "--output", type=path, help="A JSON file for the rows of results.")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        cfg = Config(
            preset="alignprop-k",
            prompts="a red circle",
            num_inference_steps=args.steps,
            batch_size=args.rows,
            output=Path(folder) / "run",
            trackers=(),
        )
        trainer = Trainer(cfg)
        device = trainer.accelerator.device
        sides = steps(trainer)
        about = machine(device, args.repeats)
        say(f"one training step, T = {args.steps}, {args.rows} rows:")
        times = rounds({name: partial(step, loss) for name, loss in sides.items()}, args.repeats, device)
        on = f"T = {args.steps}, {args.rows} rows"
        rows = [
            ratio("full back-propagation / K of an average draw", on, times, "full / uniform", ">= 1.4"),
            ratio("full back-propagation / K = 1", on, times, "full / last", ">= 3"),
            ratio("recorded and thrown away / K = 1", on, times, "thrown / last", None),
        ]
        own = (trainer.policy.adapted, trainer.policy.latents.vae)
        kept = {name: kept_bytes(loss, own) for name, loss in sides.items()}
    for name, size in kept.items():
        rows.append(
            Row(f"megabytes kept for the backward pass: {name}", on, size / 1e6, size / 1e6, size / 1e6)
        )
    if args.output:
        write(args.output, about, rows)
    print(table(about, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
