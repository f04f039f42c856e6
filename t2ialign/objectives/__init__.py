"""Objectives as pure functions: per-sample tensors (B,) in, losses (B,) out; the trainer reduces.

A file declares the losses that a setting may name: `NAMES = {name: inputs}`, where the name is its function's
and the inputs are one of `INPUTS`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LOG_RATIOS, ERRORS, TIES, MARGINS = INPUTS = ("log-ratios", "errors", "ties", "margins")
"""Inputs of a loss, for winner and loser: log pi / pi_ref, or mean squared denoising errors, for which
no reference is run; or log-ratios and which pairs are ties, or how much better each winner is. Its signature
is loss(win, lose, *, beta, weight) with win, lose and weight (B,); one on errors also gets T, the number of
training timesteps, one on ties `tied` (B,) and `tie_width`, one on margins `margin` (B,)."""


def names(*inputs: str) -> tuple[str, ...]:
    """The losses on these inputs, or on any, read from the files' `NAMES` without importing them."""
    return tuple(name for name, (_, kind) in _declared().items() if kind in (inputs or INPUTS))


def load(name: str) -> Callable[..., Tensor]:
    """The loss of this name. Raises ValueError for another one, with those that there are."""
    if name not in _declared():
        raise ValueError(f"got loss {name!r}; expected one of {', '.join(names())}; check the spelling")
    module, _ = _declared()[name]
    loss: Callable[..., Tensor] = getattr(import_module(f"t2ialign.objectives.{module}"), name)
    return loss


@cache
def _declared() -> dict[str, tuple[str, str]]:
    """Name -> module and inputs."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return {name: (file.stem, kind) for file in files for name, kind in _literal(file).items()}


def _literal(file: Path) -> dict[str, str]:
    """The `NAMES` of a file; {} without. Raises ValueError for inputs that no trainer gives."""
    text = file.read_text(encoding="utf-8")
    for node in ast.parse(text).body if "\nNAMES = " in text else []:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NAMES":
            declared: dict[str, str] = ast.literal_eval(node.value)
            if strange := sorted(set(declared.values()) - set(INPUTS)):
                raise ValueError(
                    f"got inputs {strange[0]!r} in NAMES of {file.name}; expected {' or '.join(INPUTS)}; "
                    "change it"
                )
            return declared
    return {}
