"""Keys of stored rows by their contents, so that a build goes on however rows moved in the meantime."""

import hashlib
from pathlib import Path

from PIL import Image
from PIL.ExifTags import Base

from t2ialign.data.images import ImageSource
from t2ialign.data.remote import Remote

ORIENTATION = Base.Orientation


def text_key(prompt: str) -> int:
    """64 bits that stand for a prompt."""
    return _number(prompt.encode("utf-8", "surrogatepass"))


def picture_key(picture: ImageSource) -> int:
    """64 bits that stand for one picture; a file is known by its path, size and date, or by its address."""
    return _number(_contents(picture))


def pair_key(win: ImageSource, lose: ImageSource) -> int:
    """64 bits that stand for two pictures in this order; a file is known by its path, size and date."""
    return _number(_contents(win) + _contents(lose))


def _contents(picture: ImageSource) -> bytes:
    if isinstance(picture, Path):
        return _hash(_file(picture))
    if isinstance(picture, Remote):
        return _hash(picture.address.encode("utf-8", "surrogatepass"))
    if isinstance(picture, bytes):
        return _hash(picture)
    return _hash(_pixels(picture))


def _file(path: Path) -> bytes:
    try:
        stat = path.stat()
    except (OSError, ValueError):  # reading it will say what is wrong, even with a name that no file can have
        return f"{path} absent".encode("utf-8", "surrogatepass")
    return f"{path} {stat.st_size} {stat.st_mtime_ns}".encode("utf-8", "surrogateescape")


def _pixels(picture: Image.Image) -> bytes:
    try:  # pixels before the orientation: some formats know it only then
        pixels = picture.tobytes()
        how = picture.mode, picture.size, picture.getexif().get(ORIENTATION), picture.getpalette()
        return repr((*how, picture.info.get("transparency"))).encode() + pixels
    except (OSError, ValueError, SyntaxError):  # cut short: reading it will say so, and nothing is stored
        return b"unreadable"


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)
