"""What messages call a setting: batch_size=0 in Python, --batch-size 0 within a command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_flags: ContextVar[Mapping[str, str] | None] = ContextVar("flags", default=None)
"""Parameters whose flag has another name than theirs; None where Python was called, and no command."""


@contextmanager
def on_command_line(flags: Mapping[str, str]) -> Iterator[None]:
    """Within this block settings are called by their flags, which are those in `flags` or --NAME."""
    token = _flags.set(flags)
    try:
        yield
    finally:
        _flags.reset(token)


def name(parameter: str) -> str:
    """The parameter batch_size as the user wrote it: "batch_size", or "--batch-size"."""
    flags = _flags.get()
    return parameter if flags is None else flags.get(parameter, f"--{parameter.replace('_', '-')}")


def prefix(parameter: str) -> str:
    """What stands before its value: "batch_size=", or "--batch-size "."""
    return name(parameter) + ("=" if _flags.get() is None else " ")


def given(parameter: str, value: object) -> str:
    """The parameter with its value: "batch_size=0", or "--batch-size 0"."""
    return f"{prefix(parameter)}{value}"


def resuming() -> str:
    """How a run that was cut off is continued: "resume=True", or "--resume latest"."""
    return "resume=True" if _flags.get() is None else "--resume latest"
