"""Training within a claim: a run that was cut off goes on."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any


def run(method: str, values: dict[str, Any], output: Path, seed: int, *, resume: bool) -> None:
    """Run `train METHOD` into `output` to its `max_steps`, from the newest checkpoint or from the start."""
    module = import_module(f"t2ialign.methods.{method}.trainer")
    config = module.Config(**values, output=output, seed=seed, resume="latest" if resume else None)
    module.Trainer(config).fit()


def fit(method: str, values: dict[str, Any], output: Path, seed: int) -> None:
    """`run`, from the newest checkpoint if there is one."""
    from t2ialign.training import checkpoint

    run(method, values, output, seed, resume=bool(checkpoint.whole(output / "checkpoints")))


def is_finished(output: Path) -> bool:
    """Whether a run came to its end: the card is written last of all."""
    return (output / "README.md").exists()


def finish(method: str, values: dict[str, Any], output: Path, seed: int) -> None:
    """`fit`, unless it is finished."""
    if not is_finished(output):
        fit(method, values, output, seed)
