"""Lists the methods: the folders of t2ialign/methods that have a config.py and a trainer.py.

Modules of users may be methods too, by their dotted name.
"""

from __future__ import annotations

import difflib
import logging
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from t2ialign.config import Config

log = logging.getLogger(__name__)


@cache
def methods() -> tuple[str, ...]:
    """The names of the methods, without importing them."""
    folders = sorted((Path(__file__).parents[1] / "methods").iterdir())
    return tuple(d.name for d in folders if all((d / f).is_file() for f in ("config.py", "trainer.py")))


def taking_any_reward() -> list[str]:
    """The methods whose reward needs no gradient: their Trainer says `any_reward`."""
    trainers = {name: import_module(f"t2ialign.methods.{name}.trainer").Trainer for name in methods()}
    return [name for name, trainer in trainers.items() if getattr(trainer, "any_reward", False)]


def load_method(name: str) -> ModuleType:
    """The trainer.py of a folder of t2ialign/methods, or any importable module with Config and Trainer.

    Raises ValueError for any other name, naming the nearest method, for a module that does not import, and
    for one that lacks either.
    """
    if name in methods():
        return import_module(f"t2ialign.methods.{name}.trainer")
    if "." in name and _importable(name):
        return _imported(name)
    near = difflib.get_close_matches(name.lower().replace("-", "_"), methods(), n=1)
    hint = f"did you mean {near[0]}?" if near else "check the spelling"
    if "/" in name or name.endswith(".py"):
        hint = "name a module of yours as package.module, not as a file"
    raise ValueError(f"got method {name!r}; expected one of {', '.join(methods())}; {hint}")


def settings_of(name: str) -> type[Config]:
    """The settings of a method, without an import of torch. Raises ValueError as `load_method` does."""
    if name in methods():
        return cast("type[Config]", import_module(f"t2ialign.methods.{name}.config").Config)
    return cast("type[Config]", load_method(name).Config)


def _imported(name: str) -> ModuleType:
    log.warning("running code of the module %s, which is the method", name)
    try:
        module = import_module(name)
    except (Exception, SystemExit) as error:  # code of users fails in any way
        raise ValueError(
            f"got method {name!r}, which does not import ({type(error).__name__}: {error}); expected a "
            "module; correct it or install what it needs"
        ) from error
    if missing := [part for part in ("Config", "Trainer") if not hasattr(module, part)]:
        raise ValueError(
            f"got method {name!r} without {' and '.join(missing)}; expected a module that defines Config and "
            f"Trainer, or one of {', '.join(methods())}; define them"
        )
    return module


def _importable(dotted: str) -> bool:
    try:
        return find_spec(dotted) is not None
    except (ImportError, ValueError):  # a parent package is missing, or the name is that of a file
        return False
