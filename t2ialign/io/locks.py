"""One run at a time in an output or a cache, by a lock of the operating system that ends with its process.

It is taken at once or not at all. filelock (from 3.30 on) closes it in forked children, and Python in the
programs that it starts, so that a worker which outlives its run keeps nobody away.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

LOCK = ".lock"
"""The name of the lock in a folder, or the end of the one beside a file. A killed run leaves it, unlocked."""
MOMENT = 0.3
"""Seconds that a run gets to release its lock while it ends."""
LOCKLESS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
"""The errors of file systems without locks, as NFS and Lustre may be mounted."""

log = logging.getLogger(__name__)

Owner = TypeVar("Owner")
Given = ParamSpec("Given")
Result = TypeVar("Result")


@contextmanager
def hold_folder(
    folder: Path, name: str = "--output ", *, shared: bool = False, nested: bool = False
) -> Iterator[None]:
    """Within this block nobody else holds the folder, which is made; `name` is what errors call it.

    shared: the processes of one run work on it together; the first one (RANK 0) holds it for all. nested: the
    same thread may hold it in several blocks, one within the other, all of them nested. A folder that was
    made and stayed empty is removed. Raises ValueError if it is a file, if another run holds it, if it cannot
    be written, and for several processes that do not share it.
    """
    if not shared:
        check_alone(f"{name}{folder}")
    elif os.environ.get("RANK", "0") != "0":
        yield
        return
    _check_folder(folder, name)
    with _hold(Path(os.path.realpath(folder)) / LOCK, f"{name}{folder}", nested=nested):
        yield


def holding_output(
    fit: Callable[Concatenate[Owner, Given], Result],
) -> Callable[Concatenate[Owner, Given], Result]:
    """A method of an object with `cfg.output`, during which nobody else holds that folder.

    The command line holds it too, from before anything is loaded.
    """

    @wraps(fit)
    def held(self: Owner, *args: Given.args, **settings: Given.kwargs) -> Result:
        with hold_folder(self.cfg.output, "output=", shared=True, nested=True):  # type: ignore[attr-defined]
            return fit(self, *args, **settings)

    return held


@contextmanager
def hold_file(file: Path, name: str = "--output ", *, shared: bool = False) -> Iterator[None]:
    """The same for a file, or a folder that is replaced as a whole: the lock lies beside it.

    shared: each process of one run has a file of its own.
    """
    if not shared:
        check_alone(f"{name}{file}")
    _check_link(file, name)
    where = Path(os.path.realpath(file))
    with _hold(where.with_name(f".{where.name}{LOCK}"), f"{name}{file}"):
        yield


def check_free(
    folder: Path, name: str = "--output ", *, advice: str = "", passing: Callable[[Path], bool] | None = None
) -> None:
    """Raises ValueError if the folder holds anything but a lock and what is `passing`, or is a file.

    advice: what the user may do beside choosing another folder, such as "add resume=latest, or ".
    """
    _check_folder(folder, name)
    items = sorted(folder.iterdir()) if folder.is_dir() else []
    there = [item.name for item in items if item.name != LOCK and not (passing and passing(item))]
    if there:
        raise ValueError(
            f"got {name}{folder}, which is in use (it holds {there[0]}); expected a new or empty folder; "
            f"{advice}choose another"
        )


def check_alone(what: str) -> None:
    """Raises ValueError if this is one of several processes, all of which would write `what`."""
    if (world := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise ValueError(
            f"got {world} processes that would all write {what}; expected one; start the command without "
            "accelerate launch, or unset WORLD_SIZE"
        )


def _check_folder(folder: Path, name: str) -> None:
    _check_link(folder, name)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"got {name}{folder}, which is a file; expected a folder; choose another")


def _check_link(path: Path, name: str) -> None:
    if path.is_symlink() and not path.exists():
        raise ValueError(
            f"got {name}{path}, which is a link that leads nowhere; expected a folder; remove the link"
        )


@contextmanager
def _hold(file: Path, shown: str, *, nested: bool = False) -> Iterator[None]:
    made = [folder for folder in file.parents if not folder.exists()]
    lock = _lock(file, shown, nested=nested)
    try:
        yield
    finally:
        # Before it is let go: whoever waits for this file then finds that it is gone, and makes a new one.
        if lock.lock_counter == 1:  # no block around this one holds it
            with suppress(PermissionError):  # of Windows, which deletes no open file
                file.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # not empty, or used by the next run
            for folder in made:
                folder.rmdir()


def _lock(file: Path, shown: str, *, nested: bool) -> BaseFileLock:
    """A lock that is held. Raises ValueError if that cannot be."""
    try:
        return _acquired(FileLock(file, timeout=MOMENT, fallback_to_soft=False, is_singleton=nested))
    except Timeout as error:
        raise _in_use(shown) from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        if isinstance(error, OSError) and error.errno not in LOCKLESS:
            raise ValueError(
                f"got {shown}, where no lock can be written ({error.strerror or error}); expected a "
                "writable folder; choose another"
            ) from error
    log.warning("%s is on a file system without locks: a file stands for one", shown)
    # What the attempt left is empty; a file that stands for a lock has text.
    if file.is_file() and not file.stat().st_size:
        file.unlink(missing_ok=True)
    try:
        return _acquired(SoftFileLock(file, timeout=MOMENT, is_singleton=nested))
    except Timeout as error:
        raise _in_use(f"{shown} (or a killed one left {file}: then delete it)") from error


def _acquired(lock: BaseFileLock) -> BaseFileLock:
    """The lock, held; its folder may vanish with the run that made it, and is made again."""
    for _ in range(100):
        try:
            Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(poll_interval=MOMENT / 6)
            break
        except FileNotFoundError:
            continue
    else:
        lock.acquire()
    return lock


def _in_use(shown: str) -> ValueError:
    return ValueError(
        f"got {shown}, which another run is using; expected one run at a time; wait until it has ended, or "
        "choose another"
    )
