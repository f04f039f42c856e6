"""Where output goes: to a terminal, on which bars may move, or to a file or pipe, where nothing does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

READER_LEFT = 141
"""The exit code that a shell gives for a program whose reader left: 128 and the number of SIGPIPE."""
NO_BARS = ("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE")
"""Variables that datasets, huggingface_hub (and with it transformers) and tqdm read at their import."""


@contextmanager
def plain_output(quiet: bool) -> Iterator[None]:
    """No library draws a bar if stderr is no terminal, or `quiet`; what was printed is out at the end.

    A bar moves by control characters, which a file keeps. Raises BrokenPipeError if the reader has left.
    """
    added = [] if not quiet and sys.stderr.isatty() else [name for name in NO_BARS if name not in os.environ]
    os.environ |= dict.fromkeys(added, "1")
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        sys.stdout.flush()


def open_closed() -> None:
    """Printed text is discarded if the parent process has closed the output, as 1>&- does."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))


def reader_left() -> bool:
    """Whether the reader of stdout or stderr has left, as one more line shows; the rest is discarded."""
    for stream in (sys.stdout, sys.stderr):
        try:
            print(file=stream, flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            return True
    return False
