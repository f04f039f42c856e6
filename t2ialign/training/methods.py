"""Which methods there are: the folders of t2ialign/methods that have a config.py and a trainer.py."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path


@cache
def methods() -> tuple[str, ...]:
    """Their names, found without importing them."""
    folders = sorted((Path(__file__).parents[1] / "methods").iterdir())
    return tuple(d.name for d in folders if all((d / f).is_file() for f in ("config.py", "trainer.py")))


def taking_any_reward() -> list[str]:
    """Those whose reward needs no gradient: their Trainer says `any_reward`."""
    trainers = {name: import_module(f"t2ialign.methods.{name}.trainer").Trainer for name in methods()}
    return [name for name, trainer in trainers.items() if getattr(trainer, "any_reward", False)]
