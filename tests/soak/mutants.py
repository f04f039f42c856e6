"""Bytes of images, whole and mutated, and what is no image under an image's name."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from random import Random

from PIL import Image, ImageDraw, features

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P"),
    "TIFF": ("1", "L", "RGB", "RGBA", "I;16", "F", "CMYK"),
    "BMP": ("1", "L", "RGB"),
    "PPM": ("L", "RGB"),
    "TGA": ("L", "RGB", "RGBA"),
    "JPEG2000": ("L", "RGB"),
    "AVIF": ("RGB",),
}
ENDINGS = {"JPEG": "jpg", "JPEG2000": "jp2", "TIFF": "tif"}
NEEDS = {"JPEG2000": "jpg_2000", "AVIF": "avif", "WEBP": "webp"}


def whole() -> dict[str, bytes]:
    """Name with its ending -> an image that every reader takes, of each format and mode."""
    found = {}
    for kind, modes in MODES.items():
        if kind in NEEDS and not features.check(NEEDS[kind]):
            continue
        for mode in modes:
            image = Image.new("RGB", (40, 30), "white")
            ImageDraw.Draw(image).ellipse([4, 4, 24, 24], fill="red")
            if mode in ("I;16", "F"):
                image = image.convert("L").convert("F" if mode == "F" else "I;16")
            file = io.BytesIO()
            image.convert(mode).save(file, kind)
            ending = ENDINGS.get(kind, kind.lower())
            found[f"{kind}-{mode.replace(';', '')}.{ending}"] = file.getvalue()
    return found


def flipped(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def zeroed(rng: Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    length = rng.randrange(1, 200)
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def sized(rng: Random, data: bytes) -> bytes:
    """A large number where formats declare theirs."""
    start, number = rng.randrange(min(64, len(data))), rng.choice((2**31 - 1, 2**32 - 1, 65535, 2**16, 99999))
    return data[:start] + struct.pack(rng.choice("<>") + "I", number) + data[start + 4 :]


def spliced(rng: Random, data: bytes) -> bytes:
    place, other = rng.randrange(len(data)), rng.choice(list(whole().values()))
    return rng.choice((data[:place] + other, data + other, data[:place] + data, other[:20] + data[20:]))


def tagged(rng: Random, data: bytes) -> bytes:
    """EXIF of random bytes, or of an orientation that there is not."""
    image, file = Image.new("RGB", (16, 12), "blue"), io.BytesIO()
    kind = rng.choice(("JPEG", "PNG", "WEBP"))
    exif = Image.Exif()
    exif[0x0112] = rng.choice((0, 6, 9, 65535))
    garbage = b"Exif\0\0" + rng.choice((b"II*\0", b"MM\0*", b"")) + rng.randbytes(rng.randrange(300))
    image.save(file, kind, exif=rng.choice((garbage, flipped(rng, exif.tobytes()), exif.tobytes())))
    return file.getvalue()


MUTATIONS: tuple[Callable[[Random, bytes], bytes], ...] = (flipped, cut, zeroed, sized, spliced, tagged)


def png(width: int, height: int, *, rows: int = 0) -> bytes:
    """A PNG of one bit that declares a size, with so many rows of pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    packer = zlib.compressobj(9)
    line = bytes((width + 7) // 8 + 1) if rows else b""
    pixels = b"".join(packer.compress(line) for _ in range(rows)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def no_images(rng: Random, canary: str) -> Iterator[bytes]:
    """What must never get a score: programs, documents, sizes without pixels, nothing at all."""
    run = f"(%pipe%touch {canary}) (w) file"
    yield f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{run}\nshowpage\n".encode()
    yield f"%!PS\n{run}\n".encode()
    yield b"%PDF-1.4\n1 0 obj<</Type/Catalog/OpenAction<</S/JavaScript/JS(x)>>>>endobj\n"
    yield b"<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><svg>&a;</svg>"
    yield b"<svg xmlns='http://www.w3.org/2000/svg' onload='pwn()'><script>pwn()</script></svg>"
    yield b""
    yield b"\0" * rng.randrange(1, 4000)
    yield rng.randbytes(rng.randrange(1, 4000))
    yield b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\xf7\0\0"
    yield b"BM" + struct.pack("<IIIIiiHHI", 99, 0, 54, 40, 2**31 - 1, -(2**31), 1, 24, 0) + bytes(20)
    yield png(rng.choice((2**31 - 1, 10**6, 30000)), rng.choice((2**31 - 1, 10**6, 30000)))
    yield b"P6\n999999999 999999999\n255\n"
    yield b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 65535) + rng.randbytes(100)
