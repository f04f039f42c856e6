"""Headers of a .tar that must all be whole: `tarfile` takes a damaged or missing one for the end."""

from __future__ import annotations

import tarfile

BLOCK = 512
"""An archive is a whole number of these bytes."""
CHUNK = 1 << 16
"""Bytes that are read at a time after the end of an archive."""


class Header(tarfile.TarInfo):
    """A header for `tarfile.open(..., tarinfo=Header)`: an archive ends at two blocks of zeros only."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Header:
        """The next one. Raises tarfile.ReadError if it is damaged, for no end, and for data after the end."""
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed does not list it
            _check_end(archive)
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{str(error) or 'no header'} where a file or the end is due") from error


def _check_end(archive: tarfile.TarFile) -> None:
    """Raises tarfile.ReadError unless the block of zeros that was just read is followed by one or more."""
    stream = archive.fileobj
    assert stream is not None, "an archive is read from a stream"
    after = stream.read(BLOCK)
    if len(after) < BLOCK:
        raise tarfile.ReadError("one block of zeros where two mark the end")
    while after:
        if any(after):
            raise tarfile.ReadError("data after the end of the archive")
        after = stream.read(CHUNK)
