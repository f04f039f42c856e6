"""The tensors of a whole model that was saved as an object, taken out without running anything of it.

`torch.save(model)` writes the names of the model's classes and of whatever else it holds, and opening such a
file imports and runs them. Here each name stands for an inert record instead, inside torch's own reader of
weights, which knows no other way to make an object. Nothing that the file names is ever imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

KNOWN = ("torch.nn.modules", "torch.nn.functional", "torch._C._nn", "transformers", "trainer.models")
"""Packages whose names belong in a pickled model: layers, activations, configurations, MPS's own code.

They are not imported either. Any other name means that the file is not what it is said to be.
"""


class Record:
    """Stands for an object of a named class: it has the attributes that the file gives it, and no more."""

    held: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.held = state


def read_module(path: str | Path, known: Sequence[str] = KNOWN) -> dict[str, Tensor]:
    """A file of torch.save(module) -> parameters and all buffers, also not persistent ones, by their names.

    Raises ValueError for a file that torch's reader of weights refuses, that names anything outside of the
    packages `known`, or that holds no module.
    """
    path = Path(path)
    with _allowing([]), _refusing(path):
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    odd = sorted(name for name in names if not name.startswith(tuple(f"{package}." for package in known)))
    if odd:
        raise ValueError(
            f"got {path}, which names {', '.join(odd[:5])}; expected a model of {', '.join(known)} alone; "
            "do not open it elsewhere, and get the file from its authors"
        )
    with _allowing([(type("Inert", (Record,), {}), name) for name in names]), _refusing(path):
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, Record):
        raise ValueError(
            f"got {type(loaded).__name__} in {path}; expected a whole module; save it with torch.save(module)"
        )
    tensors = dict(_tensors(loaded, ""))
    if not tensors:
        raise ValueError(f"got no tensors in {path}; expected a whole module; check the file")
    return tensors


def _tensors(module: Record, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for kind in ("_parameters", "_buffers"):
        for name, value in _mapping(module, kind):
            if isinstance(value, Tensor):
                yield prefix + name, value.detach()
    for name, child in _mapping(module, "_modules"):
        if isinstance(child, Record):
            yield from _tensors(child, f"{prefix}{name}.")


def _mapping(module: Record, kind: str) -> Iterator[tuple[str, Any]]:
    held = module.held.get(kind)
    if isinstance(held, Mapping):
        yield from ((str(name), value) for name, value in held.items())


@contextmanager
def _allowing(inert: list[tuple[Any, str]]) -> Iterator[None]:
    """Allow these stand-ins for names and no others; permissions of other libraries are put aside."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with torch.serialization.safe_globals(list(inert)):
            yield
    finally:
        torch.serialization.add_safe_globals(others)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"got {path}, which torch's reader of weights refuses ({lines[0][:160]}); "
            "expected torch.save(module); check the file"
        ) from error
