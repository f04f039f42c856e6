"""Files below a folder: links are followed, clutter is left out and counted."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from t2ialign.io.messages import one_line

CLUTTER = frozenset(
    (
        *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
        *("$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
        *("__macosx", "icon\r", "lost+found"),
    )
)
"""Files and folders that storage servers, Windows, macOS and Linux create, in lower case."""
HIDDEN = "hidden or system"
NAMED, KINDS, LENGTH = 2, 6, 40
"""Names of each kind that a note quotes, kinds that it lists, and characters of a name."""

log = logging.getLogger(__name__)


class SkippedFiles:
    """The files that were left out of a folder, by kind."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """Count one more entry, by its name below the folder."""
        self.names.setdefault(kind, []).append(name)

    def note(self, root: Path) -> None:
        """Log on one line how many entries below `root` were skipped, and some of their names."""
        kinds = sorted(self.names.items(), key=lambda item: (-len(item[1]), item[0]))
        if not kinds:
            return
        parts = [f"{len(names)} {kind} ({_few(names)})" for kind, names in kinds[:KINDS]]
        if more := sum(len(names) for _, names in kinds[KINDS:]):
            parts.append(f"{more} of other kinds")
        total = sum(len(names) for _, names in kinds)
        what = "file that is not an image" if total == 1 else "files that are not images"
        log.warning("%s", one_line(f"{root}: skipped {total} {what}: {', '.join(parts)}"))


def walk(root: Path, *, deep: bool = True) -> tuple[list[Path], SkippedFiles]:
    """All files below a folder, or only right in it, in order of name, and what was skipped.

    Links to files and folders are followed, but not to a folder that holds the link, so a loop of links ends.
    A link that leads nowhere counts as a file, so that reading it says so; devices, pipes and sockets, and
    links to them, are skipped, since opening one may wait for ever. Hidden entries and those of
    `CLUTTER` are skipped with all that is in them. Raises OSError if `root` itself cannot be listed.
    """
    files: list[Path] = []
    skipped = SkippedFiles()
    waiting: list[tuple[Path, tuple[Path, ...]]] = [(root, (Path(os.path.realpath(root)),))]
    while waiting:
        folder, above = waiting.pop()
        for entry in _entries(folder, root, skipped):
            path = folder / entry.name
            if is_clutter(entry.name):
                skipped.add(HIDDEN, _below(path, root))
            elif os.path.isdir(path) if entry.is_symlink() else entry.is_dir():
                if not deep:
                    continue
                real = Path(os.path.realpath(path))
                if any(parent.is_relative_to(real) for parent in above):
                    skipped.add("link loop", _below(path, root))
                else:
                    waiting.append((path, (*above, real)))
            elif _is_file_or_nothing(path) if entry.is_symlink() else entry.is_file():
                files.append(path)
            else:
                skipped.add("device or pipe", _below(path, root))
    return sorted(files), skipped


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name is hidden or was put there by an operating system."""
    return name.startswith(".") or name.lower() in CLUTTER


def ending(name: str | Path) -> str:
    """The ending of a file's name in lower case, such as ".png"; "" if it has none."""
    return os.path.splitext(name)[1].lower()


def stem(name: str) -> str:
    """A name without its ending, in one Unicode form: what an image and its caption have in common."""
    return composed(os.path.splitext(name)[0])


def composed(name: str) -> str:
    """The text in Unicode's composed form (NFC): macOS writes "e" and an accent where others write one."""
    return unicodedata.normalize("NFC", name)


def _entries(folder: Path, root: Path, skipped: SkippedFiles) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        if folder == root:
            raise
        skipped.add("unreadable folder", _below(folder, root))
        return []


def _is_file_or_nothing(link: Path) -> bool:
    """Whether a link leads to a file, nowhere or to itself, and not to a device, pipe or socket."""
    return os.path.isfile(link) or not os.path.exists(link)


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _few(names: list[str]) -> str:
    shown = ["".join(c if c.isprintable() else "?" for c in name) for name in sorted(names)[:NAMED]]
    cut = [name if len(name) <= LENGTH else f"...{name[3 - LENGTH :]}" for name in shown]
    return ", ".join([*cut, *(["..."] if len(names) > NAMED else [])])
