"""The file that a table names: its path as written, or the same path as other systems write it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from unicodedata import normalize
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from t2ialign.io.paths import expand

WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
"""The beginning of an absolute path of Windows."""
SHOWN = 80
"""Characters of a path that a message quotes."""


def located(where: str, text: str, base: Path) -> Path:
    """The file called `text`, relative to the folder `base`; one that is not there is given all the same.

    If there is no file of that very name, `\\` may stand for `/`, the Unicode form and the letter case of the
    ending may differ, and blanks round the name are dropped. A leading ~ is the home folder; file:// is a
    path on this machine, with its %20 decoded. `where` says in messages which cell holds the text. Raises
    ValueError for an absolute path of Windows elsewhere, for file:// with another machine's name and for NUL.
    """
    if text.strip().lower().startswith("file://"):
        return _from_url(where, text.strip())
    if "\0" in text:
        raise ValueError(
            f"{where}: got a path with a NUL character; expected the name of a file; correct the row"
        )
    written = base / expand(text)
    if os.path.exists(written):
        return written
    plain = text.strip()
    if WINDOWS.match(plain) and os.name != "nt":
        shown = plain if len(plain) <= SHOWN else f"{plain[: SHOWN - 3]}..."
        raise ValueError(
            f"{where}: got {shown}, an absolute path of a Windows computer; expected a path on this one, for "
            f"example relative to {base}; copy the images there and rewrite the column"
        )
    path = base / expand(plain.replace("\\", "/"))
    return next((form for form in _forms(path) if os.path.exists(form)), path)


def _forms(path: Path) -> Iterator[Path]:
    """A path in both forms of Unicode, with its ending as it is, in lower and in upper case."""
    head, tail = os.path.splitext(path)
    for end in dict.fromkeys((tail, tail.lower(), tail.upper())):
        for form in ("NFC", "NFD"):
            yield Path(normalize(form, head + end))


def _from_url(where: str, address: str) -> Path:
    try:
        parts = urlsplit(address)
    except ValueError as error:  # brackets, or characters that read as others
        raise ValueError(
            f"{where}: got {address[:SHOWN]}, which is no address ({error}); expected file:/// and a path; "
            "rewrite it"
        ) from error
    if parts.netloc.lower() not in ("", "localhost"):
        raise ValueError(
            f"{where}: got {address[:SHOWN]}, a file of another machine; expected file:/// and a path on "
            "this one; rewrite it"
        )
    return Path(url2pathname(parts.path) if os.name == "nt" else unquote(parts.path))
