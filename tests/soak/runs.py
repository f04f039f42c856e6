"""Commands of t2ialign in processes of their own, watched: their output, time and memory, and how they ended.

A process is forked from this one, which has imported the libraries, so that it starts within milliseconds;
with `fresh` it is a new interpreter. It leads a group of its own, which `Run.end` kills as a whole.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

VERBS = ("train", "sample", "score", "rewrite", "keypoints", "filter")
LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "pyarrow.parquet",
    "scipy.stats",
    "accelerate",
    "t2ialign.scoring.journal",
)
SECONDS, MEGABYTES = 120.0, 4000
"""What a command may take; the libraries alone take 800 MB."""
POLL = 0.005


def prepare() -> None:
    """Import what commands need, once for all of them, with no network, no GPU and one thread."""
    os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in (*LIBRARIES, *(f"t2ialign.cli.{verb}" for verb in VERBS)):
        import_module(name)


class Run:
    """One command in a folder. `code` is its exit code, or minus the signal that ended it."""

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        *,
        before: Callable[[], None] | None = None,
        fresh: bool = False,
    ) -> None:
        """Start it. before: what the forked process does first, such as arranging its own death."""
        self.words, self.folder = list(words), folder
        self.log = folder / f"log-{time.monotonic_ns()}.txt"
        self.started, self.megabytes, self.ended_by_us = time.monotonic(), 0, ""
        self.ended = 0.0
        self.code: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            _become(self.words, folder, self.log, before, fresh)

    def wait(self, *, kill_after: float | None = None, stop: int = signal.SIGKILL) -> "Run":
        """Watch it until it ends; kill_after: how old it is when `stop` is sent to its first process."""
        while self.poll() is None:
            spent = time.monotonic() - self.started
            if kill_after is not None and spent >= kill_after:
                self.ended_by_us, kill_after = self.ended_by_us or "kill", None
                os.kill(self.pid, stop)
            if spent > SECONDS or self.megabytes > MEGABYTES:
                self.ended_by_us = "time" if spent > SECONDS else "memory"
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(POLL)
        return self

    def poll(self) -> int | None:
        """The exit code, None while it runs; the peak of its memory is kept."""
        if self.code is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.code, self.ended = os.waitstatus_to_exitcode(status), time.monotonic()
                self.megabytes = max(self.megabytes, usage.ru_maxrss // 1024)
            else:
                with suppress(OSError, IndexError):
                    pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="utf-8").split()[1]
                    self.megabytes = max(self.megabytes, int(pages) * os.sysconf("SC_PAGE_SIZE") // 2**20)
        return self.code

    def end(self) -> None:
        """Kill what is left of it, worker processes too."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        while self.poll() is None:
            time.sleep(POLL)

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return (self.ended or time.monotonic()) - self.started

    @property
    def text(self) -> str:
        """All that it printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    @property
    def errors(self) -> list[str]:
        """The lines by which it refuses."""
        return [line for line in self.text.splitlines() if line.startswith("t2ialign: error:")]


def _become(
    words: list[str], folder: Path, log: Path, before: Callable[[], None] | None, fresh: bool
) -> None:
    """The forked process: it never returns."""
    code, started = 1, False
    try:
        os.setsid()
        os.chdir(folder)
        for target, descriptor in ((os.open(os.devnull, os.O_RDONLY), 0), (_open(log), 1), (_open(log), 2)):
            os.dup2(target, descriptor)
        if fresh:
            os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
            os.execv(sys.executable, [sys.executable, "-m", "t2ialign", *words])
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(i, "w" if i else "r", closefd=False) for i in range(3))
        from t2ialign.cli import main as cli

        if before is not None:
            before()
        started = True
        code = cli.main(words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and not started:  # there was no command to interrupt
            code = 128 + signal.SIGINT
        else:
            traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _open(log: Path) -> int:
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
