"""Training within a claim: a run that was cut off goes on."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any


def fit(method: str, values: dict[str, Any], output: Path, seed: int) -> None:
    """Run `train METHOD` into `output` to its `max_steps`, from the newest checkpoint if there is one."""
    from t2ialign.trainers import checkpoint

    module = import_module(f"t2ialign.trainers.{method}")
    resume = "latest" if checkpoint.whole(output / "checkpoints") else None
    module.Trainer(module.Config(**values, output=output, seed=seed, resume=resume)).fit()


def finish(method: str, values: dict[str, Any], output: Path, seed: int) -> None:
    """`fit`, unless it is finished."""
    if not (output / "README.md").exists():  # written last of all
        fit(method, values, output, seed)
