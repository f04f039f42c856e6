"""What a page shows of files: no text is taken for HTML, and no name of an image leaves its folder."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path, PurePosixPath, PureWindowsPath

from t2ialign.data.messages import printable, quoted


def escaped(value: object) -> str:
    """The value as text of an element or of a quoted attribute; what is no UTF-8 becomes escapes.

    Every value on a page goes through here, numbers of files too: a file may hold anything in their place.
    """
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return escape(text, quote=True)


def marked(value: object) -> str:
    """The value on one line of Markdown, in which nothing of it begins HTML or a new block."""
    text = printable(" ".join(str(value).split())).encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("<", "&lt;")


def inside(folder: Path, name: object) -> Path:
    """A file that a run names, within its folder, also when links are followed. Raises ValueError for any
    other place.
    """
    if isinstance(name, str) and name and "\0" not in name:
        kinds = PurePosixPath(name), PureWindowsPath(name)
        if not any(path.anchor or ".." in path.parts for path in kinds):
            if lies_within(folder, folder / name):
                return folder / name
            raise ValueError(
                f"got file {quoted(name)} in a run of {folder}, which a link leads out of that folder; "
                "expected a file within it; copy the file there"
            )
    raise ValueError(
        f"got file {quoted(name)} in a run of {folder}; expected a path within that folder; mend the row"
    )


def lies_within(folder: Path, file: Path) -> bool:
    """Whether a file lies in a folder or below it once all links are followed."""
    return Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))
