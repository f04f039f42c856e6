"""Parameters of the public functions by the names of earlier releases, and what is said of unknown ones."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from t2ialign.renamed import key_today

P = ParamSpec("P")
R = TypeVar("R")


def takes_former_names(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which takes an earlier name of a parameter with a warning.

    It raises TypeError, as Python does, for an unknown parameter, and names the one that is most like it.
    """
    known = inspect.signature(function).parameters

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **_today(function.__name__, kwargs, known))

    return call


def _today(function: str, given: dict[str, Any], known: Collection[str]) -> Any:
    names = {name: key_today(name, known) for name in given}
    for theirs, name in names.items():
        if name not in known or (name != theirs and name in given):
            near = [one for one in known if theirs in one] or difflib.get_close_matches(theirs, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"help(t2ialign.{function}) lists all of them"
            raise TypeError(f"{function}() got {theirs}, which is none of its parameters; {hint}")
    return {names[theirs]: value for theirs, value in given.items()}
