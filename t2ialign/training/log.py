"""Metrics: summed on the device, read once an optimiser step, written to metrics.jsonl and the trackers."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from t2ialign.progress import Progress, quiet
from t2ialign.training.settings import LoopConfig

METRICS = "metrics.jsonl"
Told = Callable[[int, dict[str, float]], object]
"""Called with the number of the step and its metrics."""
LARGEST_NUMBER = 2**63
"""Whole numbers from here on were never written."""
SHOWN = ("loss", "implicit_acc", "accuracy", "reward")
"""The metrics that the progress line shows, where a trainer has them."""

log = logging.getLogger(__name__)


class Meter:
    """Means over the micro-steps and processes of one optimiser step, with a single device-to-host copy."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, **values: Tensor) -> None:
        """Count in one micro-step's tensors, each by its mean."""
        for name, value in values.items():
            mean = value.detach().float().mean()
            self._sums[name] = self._sums[name] + mean if name in self._sums else mean
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """The means as numbers, and an empty meter: the one host sync of the step."""
        means = torch.stack([total / self._counts[name] for name, total in self._sums.items()])
        names = list(self._sums)
        self.clear()
        return dict(zip(names, self.accelerator.reduce(means, "mean").tolist(), strict=True))

    def clear(self) -> None:
        """Forget everything since the last read."""
        self._sums, self._counts = {}, {}


class Log:
    """metrics.jsonl (every step), trackers (every `log_every` steps), a progress line: main process only."""

    def __init__(self, accelerator: Accelerator, cfg: LoopConfig, *, title: str) -> None:
        self.accelerator, self.title, self.output = accelerator, title, cfg.output
        self.total, self.every = cfg.max_steps, cfg.log_every
        self._shown: dict[str, str] = {}

    def open(self, step: int, config: dict[str, Any]) -> None:
        """Start at `step` completed updates: later rows, which a killed run may have left, are dropped."""
        main = self.accelerator.is_main_process
        if main:
            keep_rows(self.output / METRICS, step or -1)  # row 0 is written again at step 0
            self._file = (self.output / METRICS).open("a", encoding="utf-8")
        if self.accelerator.log_with:
            options = {
                "tensorboard": {"purge_step": step + 1},
                "wandb": {"config": config, "dir": str(self.output)},
            }
            self.accelerator.init_trackers("t2ialign", init_kwargs=options)
        self._bar: Progress = Progress(
            total=self.total, initial=step, desc=self.title, unit="step", disable=not main
        )

    def write(self, step: int, row: dict[str, float], *, last: bool) -> None:
        """Record the numbers of one step; JSON has no NaN, so the file leaves such a number out."""
        if self.accelerator.is_main_process:
            finite = {name: value for name, value in row.items() if math.isfinite(value)}
            self._file.write(json.dumps({"step": step, **finite}) + "\n")
            self._file.flush()
        if self.accelerator.trackers and (step % self.every == 0 or last):
            self.accelerator.log(row, step=step)

    def mark(self, name: str, text: str) -> None:
        """Show something in the progress line from now on."""
        self._shown[name] = text

    def advance(self, row: dict[str, float]) -> None:
        """Move the progress line on by one step."""
        self._shown |= {name: f"{row[name]:.4g}" for name in SHOWN if name in row}
        self._bar.set_postfix(self._shown)
        self._bar.update()

    def images(self, step: int, image: Image.Image) -> None:
        """Hand one image to every tracker that takes images."""
        import numpy as np

        for tracker in self.accelerator.trackers:
            if hasattr(tracker, "log_images"):
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({"validation": np.asarray(image)[None]}, step=step, **layout)

    def note(self, text: str) -> None:
        """Print a note, which is neither a result nor a warning, unless the command is to be quiet."""
        if not quiet():
            self.say(text)

    def say(self, line: str) -> None:
        """Print one line beside the progress line, on the main process."""
        if self.accelerator.is_main_process:
            tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        """Flush and close everything; safe to call after a failed start."""
        if hasattr(self, "_bar"):
            self._bar.close()
        if hasattr(self, "_file"):
            self._file.close()
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.accelerator.trackers = []  # accelerate would finish them again


def keep_rows(file: Path, step: int) -> None:
    """Drop the rows past `step` and a last line torn by a kill, atomically; say what else is lost."""
    lines = _lines(file)
    rows = [_row(line) for line in lines]
    left = [(line, row) for line, row in zip(lines, rows, strict=True) if row and row["step"] <= step]
    missing = set(range(1, step + 1)) - {row["step"] for _, row in left}
    here = file.exists() or any(file.parent.glob("checkpoints/*"))  # a branch of another run begins anew
    if here and (missing or None in rows[:-1]):
        log.warning("%s is damaged: the metrics of %d steps are lost", file, len(missing))
    if file.is_dir():
        raise ValueError(f"got a folder {file}; expected the metrics of a run; move it away and run again")
    if lines:
        temporary = file.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line, _ in left), encoding="utf-8")
        temporary.replace(file)


def read_rows(file: Path) -> list[dict[str, float]]:
    """The rows of a metrics.jsonl, [] if it is gone; a line that is damaged, or torn by a kill, is none."""
    return [row for line in _lines(file) if (row := _row(line))]


def last_metrics(file: Path) -> dict[str, float]:
    """The last row of a metrics.jsonl without its step, {} if there is none."""
    rows = read_rows(file)[-1:]
    return {name: value for row in rows for name, value in row.items() if name != "step"}


def check_trackers(names: tuple[str, ...]) -> None:
    """Raises ValueError for a tracker unknown or not installed: accelerate would drop it in silence."""
    for name in names:
        if name not in ("tensorboard", "wandb"):
            raise ValueError(
                f"got tracker {name!r}; expected tensorboard or wandb; metrics.jsonl is always written"
            )
        if not installed(name):
            raise ValueError(
                f"got tracker {name!r}, which is not installed; pip install {name}, or trackers=[]"
            )


def installed(name: str) -> bool:
    """Whether a package can be imported; a folder of that name, as wandb leaves behind, is none."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def _lines(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return [line for line in text.split("\n") if line.strip()]


def _row(line: str) -> dict[str, Any] | None:
    """A row of `Log.write`: numbers by their names, with a step."""
    try:
        row = json.loads(line)
        whole = type(row["step"]) is int and row["step"] >= 0 and all(map(_is_number, row.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return row if whole else None


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < LARGEST_NUMBER)
