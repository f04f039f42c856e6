"""The trained part of an image model, and the files of it that people load."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from t2ialign.models.base import Policy
from t2ialign.models.full import save_all, train_all
from t2ialign.models.lora import add_lora
from t2ialign.models.lora_family import of_policy
from t2ialign.models.lora_saved import save_kohya, save_lora, start_from
from t2ialign.models.pipeline import digest
from t2ialign.training.settings import TrainConfig


def identity_of(policy: Policy) -> dict[str, str]:
    """Which model it is, before anything is trained: its precision, and a hash of some of all its weights."""
    weights = f"{policy.fingerprint()} {digest([policy.adapted])}"
    return {"precision": str(policy.dtype).removeprefix("torch."), "weights": weights}


def make_trainable(policy: Policy, cfg: TrainConfig) -> Callable[[Path], Path]:
    """Add the LoRA, or thaw all weights -> what writes them into a folder for diffusers.

    Raises ValueError like `add_lora` and `start_from`.
    """
    if not cfg.lora_rank:
        train_all(policy)
        return partial(save_all, policy)
    add_lora(policy, cfg.lora_rank, cfg.lora_alpha, cfg.lora_targets, seed=cfg.seed)
    if cfg.init_lora is not None:
        start_from(policy, cfg.init_lora)
    return partial(save_lora, policy, title=cfg.output.resolve().name)


def write_kohya(policy: Policy, cfg: TrainConfig, written: Path) -> Path:
    """Put a LoRA that was written for diffusers beside it for ComfyUI, A1111 and Forge -> the first file.

    Of a family whose layers have no names there, there is only the first.
    """
    if cfg.lora_rank and of_policy(policy) is not None:
        save_kohya(policy, written, kohya_file(cfg.output, written.parent))
    return written


def kohya_file(output: Path, folder: Path) -> Path:
    """The LoRA of a run for those programs, which list file names: it is named after the run."""
    best = () if folder == output else (folder.name,)
    return folder / f"{'_'.join((output.resolve().name, *best))}_kohya.safetensors"
