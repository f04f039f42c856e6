"""Image rewards for text-to-image alignment; usable alone: needs torch and never t2ialign."""

from __future__ import annotations

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from rewards.base import LatentReward, Reward

__all__ = ["LatentReward", "Reward", "load", "names"]


def names() -> dict[str, str]:
    """Every reward name that ships -> the module that serves it, read from `NAMES` without an import."""
    return {
        name: f"rewards.{file.stem}"
        for file in sorted(Path(__file__).parent.glob("*.py"))
        for name in _declared(file)
    }


def load(name: str, **options: Any) -> Reward:
    """The reward called `name`, or `build(**options)` of any importable "package.module", in eval mode.

    A file in `rewards/` declares `NAMES = {name: options}` and `build(**options) -> Reward`; options given
    here win over the declared ones. Raises ValueError for an unknown name, listing the known ones,
    and for a module that does not import, lacks build(), or builds no Reward.
    """
    known = names()
    path = known.get(name, name)
    if name not in known and ("." not in name or not _importable(name)):
        raise ValueError(
            f"got reward {name!r}; expected one of {', '.join(sorted(known))} or a package.module of yours; "
            f"{_hint(name)}"
        )
    module = _imported(path)
    declared: dict[str, Any] = module.NAMES[name] if name in known else {}
    reward = module.build(**{**declared, **options})
    if not isinstance(reward, Reward):
        raise ValueError(
            f"got {type(reward).__name__} from {path}.build(); expected a rewards.Reward; return one"
        )
    return reward.eval()


def _hint(name: str) -> str:
    if "/" in name or name.endswith(".py"):
        return "name the module as package.module, not as a file"
    return "check the spelling, or put the folder of your package on PYTHONPATH"


def _imported(path: str) -> ModuleType:
    try:
        module = import_module(path)
    except ImportError as error:
        raise ValueError(
            f"got reward module {path}, which does not import ({error}); expected one that does; "
            "install what it needs"
        ) from error
    if not callable(getattr(module, "build", None)):
        raise ValueError(f"got {path} without build(); expected a module that defines it; see rewards.load")
    return module


def _importable(dotted: str) -> bool:
    try:
        return find_spec(dotted) is not None
    except (ImportError, ValueError):  # a parent package is missing, or the name is that of a file
        return False


def _declared(file: Path) -> dict[str, dict[str, Any]]:
    """The literal `NAMES` of a module, without running it: importing every scorer to list them is slow."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == "NAMES" for target in targets):
            value = node.value  # type: ignore[attr-defined]
            return dict(ast.literal_eval(value))
    return {}
