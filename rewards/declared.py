"""Which rewards there are: the names that files below `rewards/` declare, read without an import."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any


def names() -> dict[str, str]:
    """Every reward name that ships -> the module that serves it, read from `NAMES` without an import."""
    return dict(_served())


@cache
def _served() -> tuple[tuple[str, str], ...]:
    """(name, module) of every reward, read once a process: it takes 0.1 s."""
    package = Path(__file__).parent
    files = sorted(package.rglob("*.py"), key=lambda file: file.relative_to(package).parts)
    return tuple((name, _dotted(file)) for file in files for name in declared_names(file))


def _dotted(file: Path) -> str:
    return ".".join(["rewards", *file.relative_to(Path(__file__).parent).with_suffix("").parts])


def declared_names(file: Path) -> dict[str, dict[str, Any]]:
    """The `NAMES` of a module: the reward names that it serves, and the options of each."""
    return literal(file, "NAMES")


def literal(file: Path, name: str) -> dict[str, Any]:
    """The literal mapping of that name in a module, {} without.

    It is read without running the module: importing every scorer to list them is slow.
    """
    text = file.read_text(encoding="utf-8")
    for node in ast.parse(text).body if re.search(rf"^{name}\b", text, re.MULTILINE) else []:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = node.value  # type: ignore[attr-defined]
            return dict(ast.literal_eval(value))
    return {}
