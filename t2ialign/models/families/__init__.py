"""Model families, one a file: each is a `Policy` over the networks of one diffusers pipeline.

A file declares in `PIPELINES` which pipelines of diffusers it makes a policy of, by the names of their
classes. There is no registry: the files are found here.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any


@cache
def pipelines() -> dict[str, Any]:
    """Class of a diffusers pipeline, by its name -> the policy class over it."""
    policies: dict[str, Any] = {}
    for module in pkgutil.iter_modules(__path__):
        policies |= getattr(importlib.import_module(f"{__name__}.{module.name}"), "PIPELINES", {})
    return policies


def policy_class(pipeline: str) -> Any:
    """The policy class over a pipeline of that class. Raises ValueError for one of no family."""
    if pipeline not in pipelines():
        raise ValueError(f"got a pipeline of class {pipeline}; expected one of {', '.join(pipelines())}")
    return pipelines()[pipeline]


def policy_class_of(pipe: Any) -> Any:
    """The policy class over a loaded pipeline, by its class or one that it inherits from.

    Raises ValueError for one of no family.
    """
    names = [kind.__name__ for kind in type(pipe).__mro__]
    return policy_class(next((name for name in names if name in pipelines()), names[0]))
