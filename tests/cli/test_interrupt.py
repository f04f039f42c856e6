"""Ctrl-C within a destructor or a fork, where Python drops exceptions, ends a command all the same."""

import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from multiprocessing import resource_sharer
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from t2ialign.cli.interrupt import heeded

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import os, signal, time
from t2ialign.cli.interrupt import heeded

class Dropping:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.01)

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's & leaves ignored


def drop():
    Dropping()

os.register_at_fork(before=lambda: (signal.raise_signal(signal.SIGINT), time.sleep(0.01)))

def fork():
    if not os.fork():
        os._exit(0)

try:
    with heeded():
        {how}()
        time.sleep(20)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no timer to raise it again")
@pytest.mark.parametrize("how", ["drop", "fork"])
def test_an_interrupt_that_python_drops_is_raised_again(how):
    began = time.monotonic()
    code = [sys.executable, "-c", CODE.format(how=how)]
    done = subprocess.run(code, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")
    assert time.monotonic() - began < 15


def test_other_errors_that_python_drops_are_still_told(capsys):
    from t2ialign.cli.interrupt import heeded

    class Failing:
        def __del__(self) -> None:
            raise ValueError("told")

    before, told = sys.unraisablehook, []
    sys.unraisablehook = told.append  # in the place of pytest's
    try:
        with heeded():
            Failing()
        assert sys.unraisablehook == told.append
    finally:
        sys.unraisablehook = before
    assert [str(one.exc_value) for one in told] == ["told"]


@pytest.mark.parametrize("within", [False, True])
def test_a_worker_that_ended_while_it_asked_for_a_tensor_is_no_traceback(
    within: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its half of a greeting reaches the thread that serves it; what else that thread hits is told."""
    told: list[type[BaseException]] = []

    def noted(kind: type[BaseException], *rest: Any) -> None:
        before(kind, *rest)
        told.append(kind)

    with heeded() if within else nullcontext():
        with pytest.MonkeyPatch.context() as patch:
            before = sys.excepthook
            patch.setattr(sys, "excepthook", noted)
            shared = resource_sharer.DupFd(0)
            with socket.socket(socket.AF_UNIX) as worker:
                worker.connect(shared._id[0])  # type: ignore[attr-defined]
            for _ in range(100):
                time.sleep(0.02)
                if told:
                    break
        resource_sharer.stop(timeout=5)
        assert told and issubclass(told[0], EOFError | ConnectionError)
        assert ("Traceback" in capsys.readouterr().err) is not within
        sys.excepthook(*_error())
    assert "KeyError: 'a'" in capsys.readouterr().err


def _error() -> tuple[type[BaseException], BaseException, TracebackType | None]:
    try:
        raise KeyError("a")
    except KeyError as error:
        return type(error), error, error.__traceback__
