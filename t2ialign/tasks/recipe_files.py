"""The recipes that ship: where they lie, which one a name means, and which method it is for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rewards.renamed import warn
from t2ialign.training.methods import methods

if TYPE_CHECKING:
    from t2ialign.config import Config

COMMAND = re.compile(r"^# Command: +.* train (\w+) ", re.M)


def folder() -> Path:
    """Where they lie: `t2ialign/recipes` of an installed wheel, else `scripts/configs` of the checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "scripts" / "configs"


def files() -> list[Path]:
    """Those that ship, by name."""
    return sorted(folder().glob("*.yaml"))


def find(text: str) -> Path:
    """The file that a name means: one here, with or without .yaml, else the recipe of that name that ships.

    What ends in .yaml or has a path separator is a path, whether it exists or not. Raises ValueError for an
    unknown name, naming the nearest.
    """
    here = next((path for path in (Path(text), Path(f"{text}.yaml")) if path.is_file()), None)
    if here is not None or text.endswith((".yaml", ".yml")) or re.search(r"[/\\]", text):
        return here or Path(text)
    shipped = {file.stem: file for file in files()}
    if text.endswith("_shapes") and (now := f"{text.removesuffix('_shapes')}_toy") in shipped:
        warn(f"the recipe {text}", now)
        text = now
    if text not in shipped:
        near = difflib.get_close_matches(text, shipped, n=1)
        hint = f"did you mean {near[0]}?" if near else "t2ialign recipes lists those that ship"
        raise ValueError(f"got recipe {text!r}; expected a YAML file or the name of a recipe; {hint}")
    return shipped[text]


def check_method(file: Path, method: str, config_of: Callable[[str], type[Config]]) -> None:
    """Raises ValueError for a recipe of another method: its head says so, or its settings are another's.

    config_of: the settings of a method, asked where the head does not tell.
    """
    from t2ialign.config import read_yaml, renamed

    others = COMMAND.findall(file.read_text(encoding="utf-8")) if file.is_file() else []
    if not others:
        keys = [str(key) for key in read_yaml(file)]

        def knows(name: str) -> bool:
            cls = config_of(name)
            return {renamed(cls, key) for key in keys} <= cls.model_fields.keys()

        others = [] if knows(method) else [name for name in methods() if knows(name)]
    if others and method not in others:
        shown = file.stem if file.parent == folder() else str(file)
        raise ValueError(
            f"got recipe {shown!r} for train {method}, but it is for train {others[0]}; expected a recipe of "
            f"train {method}; run t2ialign train {others[0]} -c {shown}, or see t2ialign recipes"
        )
