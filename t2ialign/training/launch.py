"""The accelerator of one run: device, processes, precision, accumulation, trackers."""

from __future__ import annotations

import sys
from datetime import timedelta

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration

from t2ialign.training.log import check_trackers
from t2ialign.training.settings import LoopConfig

PATIENCE = timedelta(hours=24)
"""How long processes wait for each other: the first one may fill the cache for hours."""


def make_accelerator(cfg: LoopConfig) -> Accelerator:
    """Set up this process. Raises ValueError for fp16 without a GPU, or a tracker that is not installed."""
    check_trackers(cfg.trackers)
    if cfg.precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("got precision=fp16 and no CUDA GPU; expected fp32 or bf16; set precision=bf16")
    AcceleratorState._reset_state()  # a singleton, which would refuse a second run of another precision
    return Accelerator(
        mixed_precision="no" if cfg.precision == "fp32" else cfg.precision,
        gradient_accumulation_steps=cfg.accumulate,
        log_with=list(cfg.trackers) or None,
        project_config=ProjectConfiguration(str(cfg.output), logging_dir=str(cfg.output / "logs")),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )


def max_memory_gb() -> float:
    """Peak GPU memory in use by tensors, or on a CPU the process's peak resident memory, in GB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return _resident_bytes() / 1e9


def _resident_bytes() -> int:
    """The process's peak resident memory; where the system counts no peak, what is resident now."""
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        import psutil

        used = psutil.Process().memory_info()
        return int(getattr(used, "peak_wset", used.rss))
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
