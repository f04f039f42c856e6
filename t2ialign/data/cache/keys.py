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


def image_key(*images: ImageSource) -> int:
    """64 bits that stand for one image, or for several in this order.

    A file is known by its path, size and date, or by its address.
    """
    return _number(b"".join(map(_contents, images)))


def _contents(image: ImageSource) -> bytes:
    if isinstance(image, Path):
        return _hash(_file(image))
    if isinstance(image, Remote):
        return _hash(image.address.encode("utf-8", "surrogatepass"))
    if isinstance(image, bytes):
        return _hash(image)
    return _hash(_pixels(image))


def _file(path: Path) -> bytes:
    try:
        stat = path.stat()
    except (OSError, ValueError):  # reading it will say what is wrong, even with a name that no file can have
        return f"{path} absent".encode("utf-8", "surrogatepass")
    return f"{path} {stat.st_size} {stat.st_mtime_ns}".encode("utf-8", "surrogateescape")


def _pixels(image: Image.Image) -> bytes:
    try:  # pixels before the orientation: some formats know it only then
        pixels = image.tobytes()
        how = image.mode, image.size, image.getexif().get(ORIENTATION), image.getpalette()
        return repr((*how, image.info.get("transparency"))).encode() + pixels
    except (OSError, ValueError, SyntaxError):  # cut short: reading it will say so, and nothing is stored
        return b"unreadable"


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)
