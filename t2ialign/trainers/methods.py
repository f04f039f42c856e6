"""Which methods there are: the files beside this one that define both Config and Trainer."""

from __future__ import annotations

import ast
from functools import cache
from importlib import import_module
from pathlib import Path


@cache
def methods() -> tuple[str, ...]:
    """Their names, found without importing them."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return tuple(file.stem for file in files if {"Config", "Trainer"} <= _classes(file))


def taking_any_reward() -> list[str]:
    """Those whose reward needs no gradient: their Trainer says `any_reward`."""
    trainers = {name: import_module(f"t2ialign.trainers.{name}").Trainer for name in methods()}
    return [name for name, trainer in trainers.items() if getattr(trainer, "any_reward", False)]


def _classes(file: Path) -> set[str]:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, ast.ClassDef)}
