"""Columns of figures, checked: equally long and finite, and the rows of each prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def finite_columns(**columns: ArrayLike) -> tuple[Array, ...]:
    """The columns as float64 (N,). Raises ValueError unless they are finite and equally long."""
    arrays = {name: np.asarray(column, np.float64) for name, column in columns.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or any(array.ndim != 1 or not len(array) for array in arrays.values()):
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"got {told}; expected equal lengths (N,), N at least 1; align the rows")
    for name, array in arrays.items():
        broken = int((~np.isfinite(array)).sum())
        if broken:
            raise ValueError(f"got {broken} {name} that are not finite; expected numbers; drop those rows")
    return tuple(arrays.values())


def rows_by_prompt(prompts: Sequence[str], rows: int) -> dict[str, NDArray[np.int64]]:
    """The row numbers of each prompt, in order of appearance."""
    if len(prompts) != rows or not rows:
        raise ValueError(
            f"got {len(prompts)} prompts for {rows} rows; expected one each, at least one; align"
        )
    rows_of: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows_of.setdefault(prompt, []).append(row)
    return {prompt: np.array(members, dtype=np.int64) for prompt, members in rows_of.items()}
