"""python scripts/gpu_check.py [-o proofs/gpu.json]

One command of less than nine minutes for a data-centre GPU: what needs CUDA (precisions, compilation, resume)
on the toy model, then training steps of Stable Diffusion 1.5, XL and 3.5 Medium at their own sizes and
scorers, with random weights: nothing is downloaded. Writes the rows as JSON, and beside it a Markdown page.

Besides this repository it needs torch, diffusers, transformers, peft, accelerate, pydantic and open_clip. A
part that fails, or for which no time is left, is named in the result. --small runs all of it on a CPU.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rewards import Reward
from scripts.bench_models import MODELS
from scripts.bench_parts import Bench, Row, machine, number, prompt, say, table, wait, write
from scripts.bench_train import write_pairs
from scripts.bench_variants import VARIANTS
from t2ialign.io import atomic
from t2ialign.io.paths import path
from t2ialign.methods.backprop import trainer as backprop
from t2ialign.methods.dpo import trainer as dpo
from t2ialign.methods.lpo import trainer as lpo
from t2ialign.models.load import policy_of
from t2ialign.training.launch import max_memory_gb
from t2ialign.training.log import METRICS, read_rows

BUDGET = 500.0
"""Seconds after which no further part is begun."""
PEAK = {"H200": 989.0, "H100": 989.0, "A100": 312.0}
"""TFLOP/s of dense bf16 products by part of a GPU's name, from NVIDIA's data sheets."""
CLIPS = ("ViT-L-14-quickgelu", "ViT-H-14")
STEPS = 5
"""Timed steps of a trainer, after one that warms up."""


class Brightness(Reward):
    """The mean pixel: a reward that costs nothing."""

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) -> (B,)"""
        return images.mean((1, 2, 3))


@dataclass(frozen=True)
class Check:
    """Where and at which sizes everything runs."""

    device: torch.device
    small: bool
    folder: Path

    def pairs(self, size: int, rows: int) -> str:
        """The folder of so many pairs of images of that side."""
        folder = self.folder / f"pairs-{size}-{rows}"
        if not folder.exists():
            write_pairs(folder, size, rows)
        return str(folder)

    def model(self, name: str) -> Any:
        """The pipeline of random weights, made on the device in bf16."""
        dtype = torch.float32 if self.small else torch.bfloat16
        with torch.device(self.device):
            pipe = MODELS[name](small=self.small)
        return pipe.to(self.device, dtype)

    @property
    def peak(self) -> float | None:
        """TFLOP/s of the device, where they are known."""
        if self.device.type != "cuda":
            return None
        name = torch.cuda.get_device_name(self.device)
        return next((value for part, value in PEAK.items() if part in name), None)


def precision(check: Check, name: str) -> Iterator[Row]:
    """A short run on the toy model: its first loss is ln 2, and its last is near that of fp32."""
    last = {}
    for kind in ("fp32", name):
        output = check.folder / f"precision-{name}-{kind}"
        rows = _toy_run(check, output, precision=kind, max_steps=10)
        last[kind] = sum(row["loss"] for row in rows[-5:]) / 5
        if kind == name:
            yield number(f"{name}: first loss - ln 2", "toy, dpo", abs(rows[1]["loss"] - 0.693147), "<= 0.01")
    yield number(
        f"{name}: mean of the last losses against fp32", "toy, dpo", abs(last[name] - last["fp32"]), "<= 0.02"
    )


def resume(check: Check) -> Iterator[Row]:
    """A run in two halves against one in one go: the largest difference of a loss."""
    whole = _toy_run(check, check.folder / "whole", max_steps=6)
    for steps in (3, 6):
        halves = _toy_run(check, check.folder / "halves", max_steps=steps, resume="latest")
    gap = max(abs(a["loss"] - b["loss"]) for a, b in zip(whole[1:], halves[1:], strict=True))
    yield number("resume: largest difference of a loss", "toy, dpo", gap, "<= 0.0001")


def variants(check: Check) -> Iterator[Row]:
    """A step with channels_last, compiled block by block, and with an optimiser that is not fused: times."""
    seconds = {}
    for name, change in {"plain": None, **VARIANTS}.items():
        trainer = _trainer(check, "dpo", "sd15", check.folder / f"variant-{name}")
        if change is not None:
            change(trainer)
        seconds[name] = _timed(trainer)
    for name in VARIANTS:
        value = seconds[name] / seconds["plain"]
        yield Row(f"a step with {name} / as it is", "sd15, dpo", value, value, value, None, seconds)


def training(check: Check, method: str, model: str) -> Iterator[Row]:
    """Images a second, peak memory and the share of the device's arithmetic of one trainer's steps."""
    if check.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer = _trainer(check, method, model, check.folder / f"{method}-{model}")
    with FlopCounterMode(display=False) as counter:
        _step(trainer)
    seconds = _timed(trainer)
    on = f"{model}, {method}, {trainer.cfg.batch_size} rows"
    yield number(
        "images a second of a training step", on, trainer.images_per_row * trainer.cfg.batch_size / seconds
    )
    yield number("peak memory in GB", on, max_memory_gb())
    tflops = counter.get_total_flops() / 1e12
    yield number("TFLOP of a training step", on, tflops)
    if check.peak is not None:
        yield number("share of the peak arithmetic (MFU)", on, tflops / seconds / check.peak)


def scoring(check: Check, clip: str) -> Iterator[Row]:
    """Images a second of one CLIP with known prompts, in bf16 autocast."""
    about = {"device": str(check.device), "small": check.small, "precision": "bf16", "clips": clip}
    args = argparse.Namespace(**about, repeats=1, images=0, workers=0)
    folder = check.folder / "clips"
    folder.mkdir(exist_ok=True)
    reward = Bench(args, folder).score(clip)
    rows = 4 if check.small else 128
    side, prompts = 64 if check.small else 512, [prompt(0)] * rows
    images = torch.rand(rows, 3, side, side).to(check.device)
    with torch.no_grad(), torch.autocast(check.device.type, torch.bfloat16):
        reward(images, prompts)
        wait(check.device)
        began = time.perf_counter()
        for _ in range(STEPS):
            reward(images, prompts)
        wait(check.device)
    yield number(
        "images a second", f"{clip}, batches of {rows}", STEPS * rows / (time.perf_counter() - began)
    )


def _trainer(check: Check, method: str, model: str, output: Path) -> Any:
    """A trainer of that method on that model at its own size, ready for steps."""
    policy = policy_of(check.model(model))
    size = 64 if check.small else policy.native_size[0]
    rows = 2 if check.small or method == "backprop" else 4
    policy.latents.native_size = (size, size)
    common: dict[str, Any] = {
        "output": output,
        "batch_size": rows,
        "accumulate": 1,
        "lora_rank": 8,
        "trackers": (),
    }
    common |= {"gradient_checkpointing": True, "precision": "fp32" if check.small else "bf16"}
    if method == "dpo":
        data = {"data": check.pairs(size, rows), "resolution": size, "holdout": 0}
        return dpo.Trainer(dpo.Config.model_validate(common | data), policy=policy)
    sampled = {"prompts": prompt(0), "num_inference_steps": 4 if check.small else 20, "guidance_scale": 5.0}
    if method == "backprop":
        cfg = backprop.Config.model_validate(common | sampled | {"preset": "draft-k"})
        return backprop.Trainer(cfg, policy=policy, reward=Brightness())
    rounds = {"collect_prompts": rows, "rollout_batch": rows, "threshold_low": 0.0, "threshold_high": 0.0}
    values = common | sampled | rounds | {"t_max": 999, "reward": "given"}
    trainer = lpo.Trainer(lpo.Config.model_validate(values), policy=policy, reward=Brightness())
    trainer.state.save(trainer.cfg.output / "checkpoints")
    trainer.before_step()
    return trainer


def _step(trainer: Any) -> None:
    """A training step on the first batch: forward, backward and the optimiser's."""
    losses, _ = trainer.loss(trainer.batch(0, 0))
    trainer.accelerator.backward(losses.mean())
    trainer.state.update()


def _timed(trainer: Any) -> float:
    """Seconds of a step, after one that warms up."""
    device = trainer.accelerator.device
    _step(trainer)
    wait(device)
    began = time.perf_counter()
    for _ in range(STEPS):
        _step(trainer)
    wait(device)
    return (time.perf_counter() - began) / STEPS


def _toy_run(check: Check, output: Path, **settings: Any) -> list[dict[str, float]]:
    """The rows of a run of dpo on the toy model."""
    values = {"data": check.pairs(32, 8), "output": output, "holdout": 0, "batch_size": 4, "accumulate": 1}
    values |= {"lora_rank": 4, "lr": 1e-4, "beta": 100, "trackers": (), "checkpoint_every": 3}
    dpo.Trainer(dpo.Config.model_validate(values | settings)).fit()
    return read_rows(output / METRICS)


def parts(check: Check) -> Mapping[str, Callable[[], Iterator[Row]]]:
    """Everything that is checked, by name, the cheapest and most telling first."""
    chosen: dict[str, Callable[[], Iterator[Row]]] = {
        "bf16": partial(precision, check, "bf16"),
        **({} if check.device.type == "cpu" else {"fp16": partial(precision, check, "fp16")}),
        "resume": partial(resume, check),
    }
    for model in MODELS:
        for method in ("dpo", "lpo", "backprop"):
            chosen[f"{method}-{model}"] = partial(training, check, method, model)
    chosen |= {f"score-{clip}": partial(scoring, check, clip) for clip in CLIPS}
    return chosen | {"variants": partial(variants, check)}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns 1 if a part failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="Use tiny models, to try the script on a CPU.")
    parser.add_argument("--only", help="The parts to run, separated by commas; without it all of them.")
    parser.add_argument(
        "-o", "--output", type=path, default=Path("proofs/gpu.json"), help="The file of rows."
    )
    args = parser.parse_args(argv)
    began, rows, failed = time.monotonic(), list[Row](), list[str]()
    about = machine(torch.device(args.device), STEPS)
    with tempfile.TemporaryDirectory() as folder:
        check = Check(torch.device(args.device), args.small, Path(folder))
        for name, part in parts(check).items():
            if args.only and name not in args.only.split(","):
                continue
            spent = time.monotonic() - began
            say(f"{name}, after {spent:.0f} s")
            if spent > BUDGET:
                failed.append(f"{name}: no time was left")
                continue
            try:
                rows += part()
            except (RuntimeError, ValueError, ImportError, OSError) as error:
                failed.append(f"{name}: {' '.join(str(error).split())[:200]}")
            gc.collect()
    about |= {"seconds": round(time.monotonic() - began), "not measured": "; ".join(failed) or "nothing"}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write(args.output, about, rows)
    atomic.write_text(args.output.with_suffix(".md"), table(about, rows) + "\n")
    print(table(about, rows))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
