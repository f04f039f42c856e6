"""Rewards of the user's own: the class or the build() that a name like ./sharpness.py:Sharpness stands for.

A name that a user typed may be of the working folder or of an installed package. A name that a folder of
weights holds may not: whatever its options, loading weights from elsewhere must not run code of their choice.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_type_hints

log = logging.getLogger(__name__)


class Record(NamedTuple):
    """The file that names of rewards come from, and the name of code that the user typed, if any."""

    file: str
    typed: str | None
    read: frozenset[Path]
    """This file and those it was read within."""


_recorded: ContextVar[Record | None] = ContextVar("recorded", default=None)


class Code(NamedTuple):
    """A function that makes a reward, and the folder that has to be on sys.path while it runs, if any."""

    build: Callable[..., Any]
    folder: Path | None


@contextmanager
def recorded(file: str | Path, typed: str | None = None) -> Iterator[None]:
    """Context in which names of rewards come from `file`, and none of them is run as code.

    `typed` is the one name that the user gave; a file that is read within another can add none. Raises
    ValueError for a file that is read within itself.
    """
    outer, here = _recorded.get(), Path(file).resolve()
    if outer is not None and here in outer.read:
        raise ValueError(
            f"got {file}, which is its own base; expected another reward as its base; train it again"
        )
    typed = typed if outer is None or typed == outer.typed else None
    read = frozenset({here}) | (frozenset() if outer is None else outer.read)
    token = _recorded.set(Record(str(file), typed, read))
    try:
        yield
    finally:
        _recorded.reset(token)


@contextmanager
def on_path(folder: Path | None) -> Iterator[None]:
    """Context in which modules of `folder` are found, after all that is installed."""
    added = [] if folder is None or str(folder) in sys.path else [str(folder)]
    sys.path.extend(added)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for path in added:
            sys.path.remove(path)


def source() -> str | None:
    """The file that names and options of rewards come from just now; None where they are the user's."""
    record = _recorded.get()
    return None if record is None else record.file


def refuse_recorded(name: str, what: str = "reward") -> None:
    """Raises ValueError, before anything is looked up, for a name of code that a file holds."""
    record = _recorded.get()
    if record is not None and name != record.typed:
        raise ValueError(
            f"got {what} {name[:200]!r} in {record.file}; expected one that ships, as in rewards.names(): "
            "code runs only where you name it yourself; see docs/rewards.md, A reward of your own"
        )


def is_code(name: str) -> bool:
    """Whether this could be a name of code: package.module, module:Class, file.py or file.py:Class."""
    place, attribute = _split(name)
    return _is_file(place) or (bool(attribute or "." in place) and _home(place) is not None)


def find(name: str) -> Code:
    """The Reward class, or the build() of a module without :Class, that a name of code says.

    Code of the user's and of other packages is announced before it is run. Raises ValueError for a file or
    module that is missing or does not import, that lacks the class or build(), and for what is neither a
    subclass of rewards.Reward or rewards.LatentReward nor a function annotated to return one, which is not
    called.
    """
    place, attribute = _split(name)
    if _is_file(place):
        path = Path(place).expanduser().resolve()
        if not path.is_file():
            raise ValueError(f"got reward {name!r}, but there is no file {path}; check the path")
        folder: Path | None = path.parent
        log.warning("running code of the file %s for the reward %s", path, name)
        module = _imported(name, lambda: _of_file(path), folder)
    else:
        home = _home(place)
        folder = Path(home) if home else None
        if folder is not None:
            log.warning("running code of the working folder %s for the reward %s", folder, name)
        else:
            announce(place, f"the reward {name}")
        module = _imported(name, lambda: importlib.import_module(place), folder)
    return Code(_chosen(module, place, attribute), folder)


def announce(place: str, what: str) -> None:
    """One line before an installed module that is no part of this project runs for `what`."""
    if place.partition(".")[0] not in ("rewards", "t2ialign"):
        spec = find_spec(place)
        where = "an installed package" if spec is None or spec.origin is None else spec.origin
        log.warning("running code of the module %s (%s) for %s", place, where, what)


def _split(name: str) -> tuple[str, str]:
    """ "a.b:C" -> ("a.b", "C"); the colon of a drive, as in C:/a.py, is part of the place."""
    place, colon, attribute = name.rpartition(":")
    return (place, attribute) if colon and place and attribute.isidentifier() else (name, "")


def _is_file(place: str) -> bool:
    return place.endswith(".py")


def _home(place: str) -> str | None:
    """The folder of a module: "" for sys.path, else the working folder; None where it is in neither."""
    if not all(part.isidentifier() for part in place.split(".")):
        return None
    if _importable(place):
        return ""
    path = Path.cwd().joinpath(*place.split("."))  # by its file alone: find_spec would run its package
    return str(Path.cwd()) if path.with_suffix(".py").is_file() or path.is_dir() else None


def _importable(place: str) -> bool:
    try:
        return find_spec(place) is not None
    except (ImportError, ValueError):  # a parent package is missing
        return False


def _of_file(path: Path) -> ModuleType:
    name = str(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _imported(name: str, load: Callable[[], ModuleType], folder: Path | None) -> ModuleType:
    try:
        with on_path(folder):
            return load()
    except (Exception, SystemExit) as error:  # code of users fails in any way
        raise ValueError(
            f"got reward {name!r}, whose module does not import ({type(error).__name__}: {error}); expected "
            "one that does; correct it or install what it needs"
        ) from error


def _chosen(module: ModuleType, place: str, attribute: str) -> Callable[..., Any]:
    definition: Any = getattr(module, attribute or "build", None)
    if inspect.isfunction(definition):
        result = returned(definition)
        if _is_reward(result) or (not attribute and result is None):  # build() alone may do without
            return definition
    if attribute and _is_reward(definition):
        if inspect.isabstract(definition):
            lacks = ", ".join(sorted(definition.__abstractmethods__))
            raise ValueError(f"got {place}:{attribute} without {lacks}; expected the method; define it")
        kind: Callable[..., Any] = definition
        return kind
    there = [key for key, value in vars(module).items() if _is_reward(value) and _of(value, module)]
    hint = f"name {place}:{there[0]}" if there else "define it; docs/rewards.md says how"
    if not attribute or definition is None:
        wanted = f"a subclass {attribute} of rewards.Reward" if attribute else "a function build()"
        raise ValueError(f"got {place} without {wanted}; expected a module that defines it; {hint}")
    what = (
        f"class {attribute}" if inspect.isclass(definition) else f"{attribute}, a {type(definition).__name__}"
    )
    raise ValueError(
        f"got {what} of {place}; expected a subclass of rewards.Reward, or a function annotated to return "
        f"one; {hint}"
    )


def _is_reward(value: object) -> bool:
    from rewards.base import LatentReward, Reward

    return inspect.isclass(value) and issubclass(value, Reward | LatentReward)


def _of(kind: Any, module: ModuleType) -> bool:
    return bool(kind.__module__ == module.__name__)


def returned(function: Callable[..., Any]) -> object:
    """The class that a function's annotation names as its result; None if there is none that can be read."""
    try:
        return get_type_hints(function).get("return")
    except (NameError, TypeError, AttributeError):
        return None
