"""The run plan: one screen before the first step, on what a training is about to do and what looks wrong."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from t2ialign.evaluation.statistics import NORMAL_975
from t2ialign.progress import quiet
from t2ialign.training.conversion import described, far_off
from t2ialign.training.facts import Facts

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator

    from t2ialign.models.base import Policy
    from t2ialign.training.log import Log
    from t2ialign.training.settings import TrainConfig
    from t2ialign.training.state import TrainState

MANY_EPOCHS = 20
"""More passes than this over the same rows are warned about."""


class Settings(Protocol):
    """The part of a trainer's settings that the plan reads."""

    output: Path
    precision: Any
    batch_size: int
    accumulate: int
    max_steps: int
    checkpoint_every: int


def announce(method: str, facts: Facts, cfg: Settings, state: TrainState, log: Log) -> None:
    """Print the plan of a run, and where it is a fresh one the line on the untrained weights."""
    accelerator = log.accelerator
    if not accelerator.is_main_process:
        return
    net = accelerator.unwrap_model(state.owner.net)
    if shown := screen(
        method, facts, cfg, accelerator, (sum(p.numel() for p in state.parameters), count(net))
    ):
        log.say(shown)
    if facts.start is not None and state.step == 0 and not quiet():
        with state.served():
            log.say(f"  {facts.start()}")


def announce_language(trainer: Any, cfg: Settings, method: str, facts: Facts) -> None:
    """Print the plan of a run whose loop is that of transformers, on its main process."""
    accelerator, net = trainer.accelerator, trainer.model
    if accelerator.is_main_process:
        trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
        if shown := screen(method, facts, cfg, accelerator, (trained, count(net))):
            print(shown, file=sys.stderr)


def screen(
    method: str, facts: Facts, cfg: Settings, accelerator: Accelerator, parameters: tuple[int, int]
) -> str:
    """The whole plan as text, of which -q leaves the warnings; parameters: trained ones and all."""
    processes = accelerator.num_processes
    if quiet():
        return "\n".join(f"warning: {line}" for line in warnings(facts, cfg, processes))
    device = device_words(accelerator.device, processes)
    rows = plan_rows(facts, cfg, device=device, processes=processes, parameters=parameters)
    return text(method, rows, warnings(facts, cfg, processes))


def plan_rows(
    facts: Facts, cfg: Settings, *, device: str, processes: int, parameters: tuple[int, int]
) -> dict[str, str]:
    """The lines of a plan, name -> text; parameters: trained ones and all."""
    trained, total = parameters
    batch, passes = cfg.batch_size * cfg.accumulate * processes, epochs(facts, cfg, processes)
    group = counted(processes, "process")
    rows = {
        "model": facts.model,
        "device": device,
        "precision": cfg.precision,
        "trainable": f"{trained:,} of {total:,} parameters ({100 * trained / max(total, 1):.3g} %)",
        "data": data_words(facts),
        "batch": f"{cfg.batch_size} x {cfg.accumulate} accumulated x {group} = {batch} rows",
        "steps": f"{cfg.max_steps}" + (f", {passes:.1f} epochs" if facts.epoch else ""),
        "checkpoints": f"every {cfg.checkpoint_every} steps in {cfg.output / 'checkpoints'}",
        **facts.more,
    }
    lines = described(facts.published, facts.numbers)
    return rows | ({"published": "; ".join(lines)} if lines else {})


def warnings(facts: Facts, cfg: Settings, processes: int) -> list[str]:
    """Warnings about the settings before the first step, a line each."""
    lines = far_off(facts.published, facts.numbers)
    passes = epochs(facts, cfg, processes)
    if facts.repeats and passes > MANY_EPOCHS:
        enough = max(1, math.floor(MANY_EPOCHS * cfg.max_steps / passes))
        lines.insert(
            0,
            f"{passes:.1f} epochs: beyond {MANY_EPOCHS} a model tends to learn its {facts.train:,} "
            f"{facts.unit} by heart; use more of them, or max_steps={enough}",
        )
    return lines


def text(method: str, rows: Mapping[str, str], warned: Iterable[str]) -> str:
    """The plan as lines of text."""
    width = max(map(len, rows))
    lines = [f"run plan: {method}", *(f"  {name:<{width}}  {words}" for name, words in rows.items())]
    return "\n".join([*lines, *(f"  warning: {line}" for line in warned)])


def epochs(facts: Facts, cfg: Settings, processes: int) -> float:
    """Passes over the data in the whole run; 0 where there are none."""
    return cfg.max_steps * cfg.batch_size * cfg.accumulate * processes / facts.epoch if facts.epoch else 0.0


def data_words(facts: Facts) -> str:
    """The amount of training and held-out data, and the change that the held-out part can show."""
    words = f"{facts.train:,} {facts.unit}"
    if not facts.heldout:
        return f"{words}, none held out"
    words += f", {facts.heldout:,} held out"
    if not facts.accuracy:
        return words
    least = smallest_change(facts.heldout)
    if least >= 0.5:
        return f"{words}, too few to show any change of their accuracy from 50 %"
    return f"{words}: their accuracy must change by {100 * least:.1f} points to show (95 %, unpaired)"


def smallest_change(heldout: int) -> float:
    """The least change of accuracy, in [0, 1], that n held-out pairs show: 1.96 sqrt(2) 0.5 / sqrt(n).

    An accuracy p of n pairs has the variance p (1 - p) / n <= 0.25 / n. The difference of two accuracies has
    the sum of both variances less twice their covariance. The same pairs are measured each time, and those
    that are right before tend to be right after: the covariance is positive, but unknown before the run.
    Without it, as if the second accuracy were of other pairs (unpaired), the standard deviation is at most
    sqrt(2 x 0.25 / n); 1.96 of them, 95 % of a normal distribution, bound the paired comparison too. Several
    pairs of one prompt tell less than as many of different prompts.
    """
    return NORMAL_975 * math.sqrt(2) * 0.5 / math.sqrt(heldout)


def device_words(device: torch.device, processes: int) -> str:
    """The device, by its name where it has one, and how many there are."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else counted(torch.get_num_threads(), "thread")
    )
    return f"{device.type} ({name})" + (f", {processes} processes" if processes > 1 else "")


def image_facts(cfg: TrainConfig, policy: Policy, prompts: int) -> Facts:
    """Facts of every trainer of an image model: name, family, prediction and sizes, validation images."""
    C, h, w = policy.latent_shape(*policy.native_size)
    height, width = policy.native_size
    model = (
        f"{cfg.model}, {policy.pipeline_class}, predicts {policy.kind}, {height}x{width} pixels, "
        f"latent {C}x{h}x{w} = {C * h * w:,} numbers"
    )
    validation = (
        f"{counted(prompts, 'prompt')} x {counted(cfg.num_validation_images, 'image')} "
        f"every {cfg.validate_every} steps, "
        f"{cfg.validation_steps} sampling steps, guidance {cfg.validation_guidance_scale:g}"
    )
    return Facts(model, more={"validation": validation} if prompts else {}, numbers=C * h * w)


def count(net: nn.Module) -> int:
    """The number of weights of a network, trained and frozen."""
    return sum(parameter.numel() for parameter in net.parameters())


def counted(number: int, noun: str) -> str:
    """1 process, 2 processes: a number with its noun."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"
