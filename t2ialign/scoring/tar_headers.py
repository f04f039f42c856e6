"""Headers of a .tar that must all be whole: `tarfile` takes a damaged or missing one for the end.

A header has a checksum, but the long name that GNU tar or POSIX (pax) puts before it has none: of that the
form is checked, and that it agrees with the shortened name in the header.
"""

from __future__ import annotations

import re
import tarfile
from typing import IO, Any

BLOCK = 512
"""An archive is a whole number of these bytes."""
CHUNK = 1 << 16
"""Bytes that are read at a time after the end of an archive."""
LONGEST = 1 << 20
"""Bytes of a long name or of pax records; a size beyond it would be read into memory all the same."""
PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)

NUMBERS = frozenset((b"atime", b"ctime", b"gid", b"mtime", b"size", b"uid"))
TEXTS = frozenset((b"charset", b"comment", b"gname", b"hdrcharset", b"linkpath", b"path", b"uname"))
"""Keywords of POSIX; others start with the name of who made them up, as in SCHILY.fflags."""
VENDOR = re.compile(rb"[A-Za-z0-9]+\..+")
NUMBER = re.compile(rb"(-?\d+(\.\d*)?)?")
RECORD = re.compile(rb"(\d{1,7}) ([^=\n]+)=")


class Header(tarfile.TarInfo):
    """A header for `tarfile.open(..., tarinfo=Header)`: an archive ends at two blocks of zeros only."""

    short = ""
    """The name in the header itself, which a long name takes the place of."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Header:
        """The next one. Raises tarfile.ReadError if it is damaged, for no end, and for data after the end."""
        stream: Any = archive.fileobj  # of which tarfile asks no more than `_Again` can
        assert stream is not None, "an archive is read from a stream"
        first = stream.read(BLOCK)
        try:
            header = cls.frombuf(first, archive.encoding or "utf-8", archive.errors or "surrogateescape")
            body = _body(stream, header) if header.type in (*PAX, *LONG) else b""
            again: Any = _Again(stream, first + body)
            archive.fileobj = again
            whole = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed does not list it
            _check_end(stream)
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{str(error) or 'no header'} where a file or the end is due") from error
        finally:
            archive.fileobj = stream
        if header.type not in (*PAX, *LONG):
            whole.short = whole.name
        elif header.type == tarfile.GNUTYPE_LONGNAME or "path" in whole.pax_headers:
            _check_name(whole)
        return whole


class _Again:
    """A stream with bytes put back before it."""

    def __init__(self, stream: IO[bytes], held: bytes) -> None:
        self.stream, self.held = stream, held

    def read(self, size: int) -> bytes:
        """Read the given number of bytes, fewer at the end."""
        first, self.held = self.held[:size], self.held[size:]
        return first + self.stream.read(size - len(first)) if size > len(first) else first

    def tell(self) -> int:
        """The number of bytes that were read."""
        return self.stream.tell() - len(self.held)


def _body(stream: IO[bytes], header: tarfile.TarInfo) -> bytes:
    """The data after a header in place of a file, in whole blocks. Raises tarfile.ReadError for damage."""
    if not 0 <= header.size <= LONGEST:
        raise tarfile.ReadError(f"a long name of {header.size} bytes")
    body = stream.read(-(-header.size // BLOCK) * BLOCK)
    text, rest = body[: header.size], body[header.size :]
    if header.type in PAX:
        _check_records(text)
    elif text.rstrip(b"\0").count(b"\0"):
        raise tarfile.ReadError("a damaged long name")
    if rest.strip(b"\0"):
        raise tarfile.ReadError("data after a long name")
    return body


def _check_records(text: bytes) -> None:
    """Raises tarfile.ReadError unless all of the text is pax records: LENGTH KEYWORD=VALUE and a line end."""
    place, raw = 0, b"hdrcharset=BINARY\n" in text
    while place < len(text):
        start = RECORD.match(text, place)
        end = place + int(start[1]) if start else 0
        if start is None or not start.end() < end <= len(text) or text[end - 1 : end] != b"\n":
            raise tarfile.ReadError("damaged pax records")
        keyword, value = start[2], text[start.end() : end - 1]
        if not (keyword in NUMBERS | TEXTS or VENDOR.fullmatch(keyword)):
            raise tarfile.ReadError(f"a damaged pax keyword {keyword[:20]!r}")
        if keyword in NUMBERS and not NUMBER.fullmatch(value):
            raise tarfile.ReadError(f"a damaged pax number {value[:20]!r}")
        if keyword in TEXTS and not raw and not _is_text(value):
            raise tarfile.ReadError("a damaged pax text")
        place = end


def _is_text(value: bytes) -> bool:
    try:
        return "\0" not in value.decode("utf-8")
    except UnicodeDecodeError:
        return False


def _check_name(member: Header) -> None:
    """Raises tarfile.ReadError if the short name of a header does not come from its long name.

    Writers cut the end off, or a part in the middle; what is not ASCII they replace or leave out.
    """
    short = [character for character in member.short if character.isascii() and character != "?"]
    letters = iter(member.name)
    if "%" not in short and not all(character in letters for character in short):
        raise tarfile.ReadError(f"a name {member.name[-60:]!r} which is that of no {member.short[-60:]!r}")


def _check_end(stream: IO[bytes]) -> None:
    """Raises tarfile.ReadError unless the block of zeros that was just read is followed by one or more.

    They fill a record, so that more of them stand where members were.
    """
    after, zeros = stream.read(BLOCK), BLOCK
    if len(after) < BLOCK:
        raise tarfile.ReadError("one block of zeros where two mark the end")
    while after:
        if any(after):
            raise tarfile.ReadError("data after the end of the archive")
        zeros += len(after)
        after = stream.read(CHUNK)
    if zeros > tarfile.RECORDSIZE:
        raise tarfile.ReadError(f"{zeros} bytes of zeros where at most {tarfile.RECORDSIZE} end an archive")
