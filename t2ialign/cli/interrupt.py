"""Ctrl-C that is not lost: Python drops what is raised within a destructor or at a fork."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_sharer
from types import TracebackType

MOMENT = 0.05
"""Seconds after which an interrupt that was dropped is raised again."""


@contextmanager
def heeded() -> Iterator[None]:
    """Within it an interrupt that Python drops is raised again: the program would go on as if nobody had
    pressed Ctrl-C.

    Destructors, callbacks of weak references and what runs around a fork have nobody to hand an error to. Nor
    has the thread that hands tensors to worker processes: one that Ctrl-C ended in the middle of its request
    is no news, and whoever waits for that worker says that it is gone. Where there are no timers, as on
    Windows, and outside of the main thread nothing is done.
    """
    timed = hasattr(signal, "setitimer") and hasattr(signal, "SIGALRM")
    if not timed or threading.current_thread() is not threading.main_thread():
        yield
        return

    def again(*_: object) -> None:
        raise KeyboardInterrupt

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if dropped.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, MOMENT)
        else:
            hook_before(dropped)

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not (isinstance(error, ConnectionError | EOFError) and is_sharing(trace)):
            uncaught_before(kind, error, trace)

    uncaught_before, sys.excepthook = sys.excepthook, uncaught
    hook_before, alarm_before = sys.unraisablehook, signal.signal(signal.SIGALRM, again)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook, sys.excepthook = hook_before, uncaught_before
        signal.signal(signal.SIGALRM, alarm_before or signal.SIG_DFL)


def is_sharing(trace: TracebackType | None) -> bool:
    """Whether an error comes from the thread that hands tensors to worker processes."""
    return trace is not None and trace.tb_frame.f_code.co_filename == resource_sharer.__file__
