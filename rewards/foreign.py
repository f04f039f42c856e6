"""Models of others, as libraries load them: no configuration brings code, and every error is one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ADAPTER = "adapter_config.json"
IMPORTED = ("megatron_core", "auto_mapping")
"""Keys of peft's configuration that name a module to import."""
KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
"""Keys of transformers' configuration that may name a repository of kernels, whose code would be fetched."""


@contextmanager
def reading(source: str | Path, wanted: str) -> Iterator[None]:
    """Context in which whatever a library raises about the model in `source` is a ValueError of one line.

    Configurations of others lead libraries to errors of any kind. ValueErrors and too little memory stay what
    they are. Raises ValueError, before anything is loaded, for a folder whose configurations bring code.
    """
    refuse_code(source)
    try:
        yield
    except (ValueError, MemoryError):
        raise
    except Exception as error:
        if is_short_of_memory(error):
            raise
        raise ValueError(
            f"got {str(source)!r}, which does not load ({reason(error)}); expected {wanted}; "
            "download it again"
        ) from error


def refuse_code(source: str | Path) -> None:
    """Raises ValueError for a folder of a model, or one of its parts, that names modules or kernels to run.

    What its files say else is for the library that reads them; so is a name on the Hub.
    """
    folder = Path(source)
    for file in [*folder.glob("*.json"), *folder.glob("*/*.json")] if folder.is_dir() else ():
        if file.name in (ADAPTER, "config.json") and (named := _named(file)):
            raise ValueError(
                f"got {named} in {file}, which would run code from elsewhere; expected a model without it; "
                "take it out if you trust the rest"
            )


def reason(error: BaseException) -> str:
    """The first line of an error with its kind, short."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:200].rstrip('.')}"


def is_short_of_memory(error: BaseException) -> bool:
    """Whether it is torch's error of a GPU, which a smaller batch or model mends."""
    return type(error).__name__ == "OutOfMemoryError"


def mapping(file: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ValueError, naming it, for anything else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"got {file}, which is no JSON object; expected one; download it again")
    return value


def _named(file: Path) -> str | None:
    """The first key of a configuration that names code."""
    try:
        values = mapping(file)
    except ValueError:
        return None
    if file.name == ADAPTER:
        used = values.get("megatron_config") is not None
        return next((key for key in IMPORTED if values.get(key) and (used or key != IMPORTED[0])), None)
    parts = [values, *(part for part in values.values() if isinstance(part, Mapping))]
    return next((key for part in parts for key in KERNELS if "/" in str(part.get(key, ""))), None)
