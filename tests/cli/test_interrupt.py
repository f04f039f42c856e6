"""Ctrl-C within a destructor or a fork, where Python drops exceptions, ends a command all the same."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
