"""Checkpoints under their authors' names: renamed, then loaded completely or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from rewards.weights import align_weights

Module = TypeVar("Module", bound=nn.Module)
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def renamed(
    state: Mapping[str, Tensor], rules: Iterable[tuple[str, str]], drop: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Keys after the first rule (pattern, replacement) that matches their start; `drop` are patterns too."""
    compiled = [(re.compile(pattern), new) for pattern, new in rules]
    unused = [re.compile(pattern) for pattern in drop]
    result = {}
    for key, value in state.items():
        if any(pattern.match(key) for pattern in unused):
            continue
        fitting = ((pattern, new) for pattern, new in compiled if pattern.match(key))
        pattern, new = next(fitting, (None, ""))
        result[key if pattern is None else pattern.sub(new, key, count=1)] = value
    return result


def on_meta(make: Callable[[], Module]) -> Module:
    """A module without memory or random weights, for `load_exactly` to fill: drawing them takes longest."""
    with torch.device("meta"):
        return make()


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Take every weight from `state`, at its precision there; a module made by `on_meta` is whole afterwards.

    Raises ValueError, naming `source`, for weights that are missing, left over, or of another shape.
    """
    expected = module.state_dict()
    check_fit(expected.keys() - state.keys(), state.keys() - expected.keys(), source)
    for key, value in state.items():
        if value.shape != expected[key].shape:
            raise ValueError(
                f"got {key} {tuple(value.shape)} in {source}; expected {tuple(expected[key].shape)}; "
                "check that the file is of this architecture"
            )
    module.load_state_dict(dict(state), assign=True)
    align_weights(module)
    for name, buffer in module.named_buffers():
        if buffer.is_meta:
            assert name.endswith("position_ids"), f"{name} is neither loaded nor known how to make"
            owner = module.get_submodule(name.rpartition(".")[0])
            owner.register_buffer("position_ids", torch.arange(buffer.shape[-1])[None], persistent=False)


def check_fit(missing: Iterable[str], unexpected: Iterable[str], source: str | Path) -> None:
    """Raises ValueError, naming `source` and some of the keys, unless there are none of either."""
    lacks, odd = sorted(missing), sorted(unexpected)
    if lacks or odd:
        raise ValueError(
            f"got {source}, which lacks {len(lacks)} weights ({', '.join(lacks[:2]) or 'none'}) and has "
            f"{len(odd)} that do not belong ({', '.join(odd[:2]) or 'none'}); "
            "expected the checkpoint of this architecture; check the file"
        )


def precision(dtype: str) -> torch.dtype:
    """One of "float32", "bfloat16" or "float16" -> the torch dtype. Raises ValueError for another word."""
    if dtype not in PRECISIONS:
        raise ValueError(f"got dtype {dtype!r}; expected {', '.join(PRECISIONS)}; pass one of them")
    return PRECISIONS[dtype]
