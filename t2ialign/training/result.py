"""The trained part of an image model, and the files of it that people load."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from t2ialign.models.families.sd import UNetPolicy
from t2ialign.models.lora import add_lora, save_all, save_kohya, save_lora, train_all
from t2ialign.training.settings import TrainConfig


def make_trainable(policy: UNetPolicy, cfg: TrainConfig) -> Callable[[Path], Path]:
    """Add the LoRA, or thaw all weights -> what writes them into a folder for diffusers.

    Raises ValueError like `add_lora`.
    """
    if not cfg.lora_rank:
        train_all(policy)
        return partial(save_all, policy)
    add_lora(policy, cfg.lora_rank, cfg.lora_alpha, cfg.lora_targets, seed=cfg.seed)
    return partial(save_lora, policy, title=cfg.output.resolve().name)


def write_kohya(policy: UNetPolicy, cfg: TrainConfig, written: Path) -> Path:
    """Put a LoRA that was written for diffusers beside it for ComfyUI, A1111 and Forge -> the first file."""
    if cfg.lora_rank:
        save_kohya(policy, written, kohya_file(cfg.output, written.parent))
    return written


def kohya_file(output: Path, folder: Path) -> Path:
    """The LoRA of a run for those programs, which list file names: it is named after the run."""
    best = () if folder == output else (folder.name,)
    return folder / f"{'_'.join((output.resolve().name, *best))}_kohya.safetensors"
