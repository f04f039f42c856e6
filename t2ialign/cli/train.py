"""t2ialign train METHOD: a config from defaults, a recipe and overrides, then the method's trainer."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from t2ialign.cli import recipes
from t2ialign.io import locks
from t2ialign.toy import default as toy
from t2ialign.training.methods import methods

if TYPE_CHECKING:
    from t2ialign.config import Config

log = logging.getLogger(__name__)

PROMPTS = ("prompts", "heldout_prompts", "monitor_prompts", "data")
"""Settings that may name a file of prompts."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments; `--help` is one of them: after a method it lists that method's settings."""
    parser.add_argument(
        "method",
        nargs="?",
        help=f"The training method: {', '.join(methods())}, or a module of yours as package.module.",
    )
    parser.add_argument(
        "-c",
        "--config",
        metavar="RECIPE",
        help="A YAML file of settings, or the name of a recipe that t2ialign recipes lists.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="A setting of the method, which overrides that of the recipe. The learning rate, for example, "
        "is written lr=1e-5, --lr 1e-5 or --lr=1e-5.",
    )
    parser.add_argument(
        "-h",
        "--help",
        action="store_true",
        help="Show this text, or the settings of the method if one is named.",
    )
    parser.set_defaults(usage=parser.format_help)


def plain(words: Sequence[str]) -> list[str]:
    """The words of the command line with every setting as key=value. Raises ValueError as `run` does."""
    from t2ialign.overrides import as_overrides

    return as_overrides(words, methods(), settings_of)


def run(args: argparse.Namespace) -> None:
    """Train. Raises ValueError for an unknown method, key or value."""
    if args.help:
        print(args.usage() if args.method is None else _settings(args.method))
        return
    if args.method is None:
        raise ValueError(f"got no method; expected one of {', '.join(methods())}; see t2ialign train --help")
    from t2ialign import config

    cls = settings_of(args.method)
    file = recipes.find(args.config) if args.config else None
    if file is not None and args.method in methods():
        recipes.check_method(file, args.method, settings_of)
    folders = (file.parent, recipes.folder()) if file else ()
    settings = config.load(cls, file, args.overrides, folders=folders)
    if key := _unnamed_model(settings):
        toy.announce(f"{key}=")
    output = getattr(settings, "output", None)  # a method of the user's may write none
    held = locks.hold_folder(Path(output), "output=", shared=True, nested=True) if output else nullcontext()
    with held:
        _fit(load_method(args.method), settings)


def _fit(module: ModuleType, settings: Config) -> None:
    """Train; if the cache turns out to be damaged, build it anew and go on from the last checkpoint."""
    from t2ialign.data.cache.shards import DamagedCache

    try:
        _fit_once(module, settings)
        return
    except DamagedCache as error:
        alone = os.environ.get("WORLD_SIZE", "1") == "1"
        if not alone or getattr(settings, "resume", "") not in (None, "latest"):
            raise
        log.warning("%s; this run does so", error)
    _fit_once(module, settings.model_copy(update={"resume": "latest"}))


def _fit_once(module: ModuleType, settings: Config) -> None:
    """Train. Where a reward fails, the error names the row of the file that its prompt stands in."""
    from rewards.failures import FailedRows
    from t2ialign.data.prompts import place_of

    try:
        module.Trainer(settings).fit()
    except FailedRows as error:
        files = (getattr(settings, name, None) for name in PROMPTS)
        places = (place_of(file, error.prompts) for file in files if isinstance(file, str | Path))
        where = next((place for place in places if place), None)
        raise ValueError(f"{where}: {error}" if where else str(error)) from error


def load_method(name: str) -> ModuleType:
    """The trainer.py of a folder of t2ialign/methods, or any importable module with Config and Trainer.

    Raises ValueError for any other name, naming the nearest method, for a module that does not import, and
    for one that lacks either.
    """
    if name in methods():
        return import_module(f"t2ialign.methods.{name}.trainer")
    if "." in name and _importable(name):
        return _imported(name)
    near = difflib.get_close_matches(name, methods(), n=1)
    hint = f"did you mean {near[0]}?" if near else "check the spelling"
    if "/" in name or name.endswith(".py"):
        hint = "name a module of yours as package.module, not as a file"
    raise ValueError(f"got method {name!r}; expected one of {', '.join(methods())}; {hint}")


def settings_of(name: str) -> type[Config]:
    """The settings of a method, without an import of torch. Raises ValueError as `load_method` does."""
    if name in methods():
        return cast("type[Config]", import_module(f"t2ialign.methods.{name}.config").Config)
    return cast("type[Config]", load_method(name).Config)


def _unnamed_model(settings: Config) -> str | None:
    """The key of the image model where nobody set it; None where it is set, or the method has none."""
    from t2ialign.training.settings import TrainConfig

    key = "model" if isinstance(settings, TrainConfig) else "generator"  # of a rewriter, model is another
    known = type(settings).model_fields
    return key if key in known and key not in settings.model_fields_set else None


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


def _settings(method: str) -> str:
    from t2ialign import config

    usage = f"usage: t2ialign train {method} [-c recipe.yaml] [key=value ...]"
    forms = "A setting may be written as lr=1e-5, --lr 1e-5 or --lr=1e-5. docs/training.md lists other names."
    cls = settings_of(method)
    examples = f"\n\nexamples:{cls.EXAMPLES.rstrip()}" if cls.EXAMPLES else ""
    return f"{usage}\n\n{forms}\n\n{config.describe(cls)}{examples}"


def _importable(dotted: str) -> bool:
    try:
        return find_spec(dotted) is not None
    except (ImportError, ValueError):  # a parent package is missing, or the name is that of a file
        return False
