"""The training loop, once: a trainer supplies `load()`, `setup()`, `batch(step, micro)` and `loss(batch)`.

Row i of an optimiser step's global batch has its own random keys, whatever process and micro-step it
falls to. So 2 processes equal 1, half the batch with twice the accumulation is the same run, and a
resumed run sees the same noise with no sampler state to save.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from t2ialign import config
from t2ialign.io.locks import holding_output
from t2ialign.training import checkpoint
from t2ialign.training.facts import Facts
from t2ialign.training.inputs import check_inputs
from t2ialign.training.launch import make_accelerator, max_memory_gb
from t2ialign.training.log import METRICS, Log, Meter, Told, last_metrics
from t2ialign.training.output import CHECKPOINTS, resume_point, set_aside_after
from t2ialign.training.plan import announce
from t2ialign.training.settings import LoopConfig
from t2ialign.training.state import TrainState
from t2ialign.training.stop import StopRequest
from t2ialign.training.watch.finite import check_finite, check_weights, not_exploded
from t2ialign.training.watch.movement import Movement

AnyCfg = TypeVar("AnyCfg", bound=LoopConfig)
BatchT = TypeVar("BatchT")


class Loop(ABC, Generic[AnyCfg, BatchT]):
    """Owns devices, accumulation, clipping, checkpoints, logging and the end of a run, whatever is trained.

    Raises ValueError if the output folder is in use, there is nothing to resume, or what the settings name is
    not there, before it loads anything.
    """

    method: ClassVar[str]
    """The name of the method, for the log and the model card."""
    images_per_row: ClassVar[int] = 1
    """The number of images that one row of a batch stands for, for images_per_s."""
    halted = False
    """Whether the run ends before `max_steps`, on all processes alike."""

    supplied: frozenset[str] = frozenset()
    """Settings whose object was handed over to the trainer: what they name need not be there."""

    def __init__(self, cfg: AnyCfg) -> None:
        self.cfg, self.stop, self._agreed = cfg, StopRequest(), False
        self._on_step: Told | None = None
        self._on_evaluation: Told | None = None
        start = resume_point(cfg)
        check_inputs(cfg, self.supplied)
        self.accelerator = make_accelerator(cfg)
        self.state = self.load()
        if start is not None:
            self.state.restore(start)
        self.meter = Meter(self.accelerator)
        self.log = Log(self.accelerator, cfg, title=self.method)
        self.setup()

    @abstractmethod
    def load(self) -> TrainState:
        """Load what is trained, on the accelerator's device."""

    @abstractmethod
    def setup(self) -> None:
        """Read the data."""

    @abstractmethod
    def batch(self, step: int, micro: int) -> BatchT:
        """This process's rows of one micro-step, on the device: a pure function of settings and `rows`."""

    @abstractmethod
    def loss(self, batch: BatchT) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses (B,), whose mean is minimised, and metrics: tensors of any shape, logged by their mean."""

    def before_step(self) -> dict[str, float]:
        """Prepare the update number `state.step` -> numbers to log with it."""
        return {}

    def evaluate(self) -> dict[str, float]:
        """Held-out metrics of the served weights at `state.step`, or none; called on the main process."""
        return {}

    def show(self, *, last: bool) -> None:
        """Render the images that are due at `state.step`, if any; called on the main process."""

    def result(self) -> Path:
        """Write the weights as users load them -> the file; on the main process, after the last step."""
        return self.state.export(self.cfg.output)

    @abstractmethod
    def write_card(self, metrics: dict[str, float]) -> None:
        """Write the model card, with the metrics of the last step."""

    def facts(self) -> Facts:
        """The facts of this run that the plan shows beside the settings of the loop."""
        return Facts(self.method)

    def data_card(self) -> str:
        """One line on the data, for the model card."""
        return "see config.yaml"

    def dataset(self) -> str | None:
        """The Hub name of the data, for the head of the model card."""
        return None

    def rows(self, micro: int) -> range:
        """The numbers, within the global batch, of this process's rows in one micro-step."""
        accelerator, size = self.accelerator, self.cfg.batch_size
        first = (micro * accelerator.num_processes + accelerator.process_index) * size
        return range(first, first + size)

    @holding_output
    def fit(self, *, on_step: Told | None = None, on_evaluation: Told | None = None) -> dict[str, float]:
        """Train to `max_steps` and write the result -> the last step's metrics.

        on_step: called on the main process after each optimiser step. on_evaluation: called there where
        held-out metrics are due, with these among the metrics.
        Raises FloatingPointError when a loss or a gradient is not finite, OSError when a checkpoint cannot be
        written: the last good checkpoint stays. SIGTERM and Ctrl-C save a checkpoint and leave by SystemExit.
        """
        row: dict[str, float] = {}
        self._on_step, self._on_evaluation = on_step, on_evaluation
        try:
            self._start()
            with self.stop:
                while not self.finished and not self.stopping:
                    row = self.before_step()
                    if not self.stopping and self.update(row):
                        self._after_step(row)
                if not self.finished:
                    self._leave()
            self._finish(row)
        finally:
            self.log.close()
        self._part()
        return row

    @property
    def finished(self) -> bool:
        """Whether `state.step` is the last one."""
        return self.halted or self.state.step >= self.cfg.max_steps

    @property
    def due(self) -> bool:
        """Whether to evaluate after this step."""
        return self.finished or self.state.step % self.cfg.evaluate_every == 0

    @property
    def stopping(self) -> bool:
        """Whether to leave now: a lone process as soon as it is told, several once all of them know."""
        return self._agreed or (self.accelerator.num_processes == 1 and bool(self.stop))

    def _start(self) -> None:
        """Claim the output folder and write checkpoint 0: from here on a kill can be resumed."""
        cfg = self.cfg
        # The count is the process's, not the accelerator's: another trainer may have set it since.
        self.accelerator.gradient_accumulation_steps = cfg.accumulate
        if self.accelerator.is_main_process:
            cfg.output.mkdir(parents=True, exist_ok=True)
            set_aside_after(cfg.output, self.state.step)
            # Without resume: the file is a recipe, and a recipe starts anew.
            config.save(cfg.model_copy(update={"resume": None}), cfg.output / "config.yaml")
        facts = self.facts()
        announce(self.method, facts, cfg, self.state, self.log)
        self.log.open(self.state.step, cfg.model_dump(mode="json"))
        self.movement = Movement.of(cfg, facts, main=self.accelerator.is_main_process)
        if self.state.step == 0:
            self.save_once()
            self._report({})

    def update(self, row: dict[str, float]) -> bool:
        """One optimiser step, its metrics put into `row` -> False if it was left half-way, to stop."""
        state, accelerator, began = self.state, self.accelerator, time.perf_counter()
        for micro in range(self.cfg.accumulate):
            with accelerator.accumulate(state.owner.net):
                losses, metrics = self.loss(self.batch(state.step, micro))
                accelerator.backward(losses.mean())
                self.meter.add(loss=losses, **metrics)
                if accelerator.sync_gradients:
                    row["lr"] = state.lr
                    norm = state.update()
                    self.meter.add(grad_norm=norm, stop=torch.full_like(norm, float(bool(self.stop))))
                elif self.stopping:
                    return False
        row |= self.meter.read()
        self._agreed = row.pop("stop") > 0
        check_finite(row, self.cfg, state.step + 1, main=accelerator.is_main_process)
        state.step += 1
        row["images_per_s"] = self.images_per_row * state.global_batch / (time.perf_counter() - began)
        row["max_memory_gb"] = max_memory_gb()
        return True

    def _after_step(self, row: dict[str, float]) -> None:
        cfg, step = self.cfg, self.state.step
        self._report(row)
        self.log.advance(row)
        if self._on_step is not None and self.accelerator.is_main_process:
            self._on_step(step, dict(row))
        for line in self.movement.add(step, row):
            self.log.say(f"warning: {line}")
        if step % cfg.checkpoint_every == 0 or self.finished:
            self.save_once()

    def _report(self, row: dict[str, float]) -> None:
        """Add the held-out metrics that are due, draw what is, and write the row."""
        main, step = self.accelerator.is_main_process, self.state.step
        if main and self.due:
            with self.state.served():
                row |= self.evaluate()
        if main:
            self.show(last=self.finished)
        if row:
            self.log.write(step, row, last=self.finished)
        if main and self.due and self._on_evaluation is not None:
            self._on_evaluation(step, dict(row))

    def save_once(self) -> None:
        """Write the checkpoint of this step, unless it is there."""
        root = self.cfg.output / CHECKPOINTS
        if not self.accelerator.is_main_process:
            return
        if not checkpoint.is_whole(checkpoint.path(root, self.state.step)):
            check_weights(self.state.trained, self.cfg, self.state.step)
            self.state.save(root)
            checkpoint.prune(root, self.cfg.checkpoint_limit, not_exploded(self.cfg.output))

    def _leave(self) -> None:
        """Save, say how to go on, and exit as a process ended by the signal does."""
        self.save_once()
        how = "add resume=latest to the same command to go on"
        self.log.say(f"stopped by {self.stop.name} after step {self.state.step}; {how}")
        self._part()
        raise SystemExit(self.stop.exit_code)

    def _part(self) -> None:
        """Wait for the process that writes, then take the processes' group apart.

        Not after an error: the others may hang in the middle of a step, and would never come here.
        """
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()

    def _finish(self, row: dict[str, float]) -> None:
        """Write the weights as users load them, and the model card."""
        if not self.accelerator.is_main_process:
            return
        written = self.result()
        self.write_card(row or last_metrics(self.cfg.output / METRICS))  # none: a finished run, resumed
        self.log.say(f"wrote {written}")
