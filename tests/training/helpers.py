"""Comparisons that several trainer tests share."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from t2ialign.training.log import METRICS, read_rows

ROOT = Path(__file__).parents[2]
CLOCK = ("images_per_s", "max_memory_gb")
"""Metrics that differ from run to run by nature."""


MOMENTS = ("exp_avg", "exp_avg_sq")


class Nested(torch.optim.AdamW):
    """AdamW whose state looks as that of bitsandbytes: its moments under one more key, beside `step`."""

    KEY = "__bnb_optimizer_quant_state__"

    def state_dict(self):
        outer = super().state_dict()
        state = {
            i: {"step": s["step"], self.KEY: {k: s[k] for k in MOMENTS}} for i, s in outer["state"].items()
        }
        return {**outer, "state": state}

    def load_state_dict(self, outer):
        state = {i: {"step": s["step"], **s[self.KEY]} for i, s in outer["state"].items()}
        super().load_state_dict({**outer, "state": state})


def numbers(output: Path) -> list[dict[str, float]]:
    """Every row of metrics.jsonl, without the clock's."""
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in read_rows(output / METRICS)]


def assert_same_checkpoint(a: Path, b: Path) -> None:
    """Weights, moving average and optimiser state, equal to the last bit."""
    names = {p.name for p in a.glob("*.safetensors")}
    assert names == {p.name for p in b.glob("*.safetensors")} and names
    for name in names:
        left, right = load_file(a / name), load_file(b / name)
        assert left.keys() == right.keys()
        for key in left:
            assert torch.equal(left[key], right[key]), f"{name}: {key} differs"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in a fresh process at the root of the repository, one thread."""
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=240)


def moved(trainer: Any) -> Any:
    """A trainer with its LoRA away from 0, so that policy and reference differ."""
    with torch.no_grad():
        for name, weight in trainer.state.trained.items():
            if "lora_B" in name:
                weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
    return trainer
