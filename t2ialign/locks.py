"""One run at a time in an output or a cache, by a lock of the operating system that ends with its process.

It is taken at once or not at all. filelock (from 3.30 on) closes it in forked children, and Python in the
programs that it starts, so that a worker which outlives its run keeps nobody away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"
"""The name of the lock in a folder, or the end of the one beside a file. A killed run leaves it, unlocked."""


@contextmanager
def hold_folder(folder: Path, name: str = "--output ") -> Iterator[None]:
    """Within this block nobody else holds the folder, which is made; `name` is what errors call it.

    Of several processes only the first one (RANK 0) holds it. A folder that was made and stayed empty is
    removed. Raises ValueError if it is a file, or if another run holds it.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    _check_folder(folder, name)
    with _hold(folder / LOCK, f"{name}{folder}"):
        yield


@contextmanager
def hold_file(file: Path, name: str = "--output ") -> Iterator[None]:
    """The same for a file, or a folder that is replaced as a whole: the lock lies beside it."""
    where = file.resolve()
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


def _check_folder(folder: Path, name: str) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"got {name}{folder}, which is a file; expected a folder; choose another")


@contextmanager
def _hold(file: Path, shown: str) -> Iterator[None]:
    made = [folder for folder in file.parents if not folder.exists()]
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"got {shown}, which another run is using; expected one run at a time; wait until it has "
            "ended, or choose another"
        ) from error
    try:
        yield
    finally:
        with suppress(PermissionError):  # of Windows, which deletes no open file
            file.unlink(missing_ok=True)
        lock.release()
        for folder in made:
            if not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
