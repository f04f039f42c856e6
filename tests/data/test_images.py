import io
import os
import struct
import sys
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from t2ialign.data import images
from t2ialign.data.files.walk import walk
from t2ialign.data.images import ENDINGS, open_rgb

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(source, **options) -> np.ndarray:
    image = open_rgb(source, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


def half_transparent(mode: str) -> Image.Image:
    """Left half opaque black, right half fully transparent black."""
    image = Image.new(mode, (4, 2))
    image.putalpha(Image.fromarray(np.array([[255, 255, 0, 0]] * 2, dtype=np.uint8)))
    return image


def png(width: int, height: int, *, data: bytes = b"") -> bytes:
    """A PNG header that claims a size, with whatever data: Pillow's own writer does not lie."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation):
    upright = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
    # Section 4.6.4 of EXIF 2.3: where the stored row 0 and column 0 lie in the upright image.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    np.testing.assert_array_equal(pixels(data), upright)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_alpha_is_laid_over_white(mode, form):
    options = {"lossless": True} if form == "WEBP" else {}
    result = pixels(encoded(half_transparent(mode), form, **options))
    assert (result[:, :2] == 0).all() and (result[:, 2:] == 255).all()


def test_half_alpha_mixes_with_white():
    assert pixels(encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 128)), "PNG")).ravel().tolist() == [
        255,
        127,
        127,
    ]


@pytest.mark.parametrize(("straight", "premultiplied"), [("LA", "La"), ("RGBA", "RGBa")])
def test_premultiplied_alpha(straight, premultiplied):
    result = pixels(half_transparent(straight).convert(premultiplied))
    assert (result[:, :2] == 0).all() and (result[:, 2:] == 255).all()


def test_palette_with_alpha_channel():
    image = Image.new("PA", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), (0, 255))
    image.putpixel((1, 0), (1, 0))
    assert pixels(image)[0].tolist() == [list(RED), list(WHITE)]


def test_palette_with_transparent_entry():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, "PNG", transparency=1))[0].tolist() == [list(RED), list(WHITE)]
    assert pixels(encoded(image, "PNG"))[0].tolist() == [list(RED), [0, 255, 0]]


def test_colour_key_transparency():
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), (1, 2, 3))
    assert pixels(encoded(image, "PNG", transparency=(1, 2, 3)))[0].tolist() == [list(RED), list(WHITE)]


def test_one_bit():
    image = Image.fromarray(np.array([[True, False]]))
    assert pixels(encoded(image, "PNG"))[0].tolist() == [[255] * 3, [0] * 3]


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk(form):
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(pixels(encoded(ink, form)).astype(int) - RED).max() <= 3


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_not_clipped(form):
    levels = np.array([[0, 257, 257 * 128, 65535]], dtype=np.uint16)
    assert pixels(encoded(Image.fromarray(levels), form))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_sixteen_bit_colour_png():
    rows = b"\0" + struct.pack(">3H", 65535, 128 * 257, 0)
    data = bytearray(png(1, 1, data=rows))
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    data[16:29] = header
    data[29:33] = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    assert pixels(bytes(data))[0, 0].tolist() == [255, 128, 0]


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_float_tiff_in_either_usual_range(top):
    levels = np.array([[0, 0.2, 1]], dtype=np.float32) * top
    assert pixels(encoded(Image.fromarray(levels), "TIFF"))[0, :, 0].tolist() == [0, 51, 255]


@pytest.mark.parametrize(
    "bad", [np.array([[0, np.nan]], "f4"), np.array([[-1, 1]], "f4"), np.array([[0, 70000]], "i4")]
)
def test_levels_without_a_meaning_are_refused(bad):
    with pytest.raises(ValueError, match="grey values"):
        open_rgb(encoded(Image.fromarray(bad), "TIFF"))


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, (0, 0, 255))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    assert (pixels(data) == RED).all()


def test_file_bytes_and_open_image_agree(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    path = tmp_path / "a.png"
    image.save(path)
    for source in (path, path.read_bytes(), image, Image.open(path)):
        np.testing.assert_array_equal(pixels(source), np.asarray(image))


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(NOISE, "JPEG")[:-900], "truncated"),
        (encoded(NOISE, "PNG")[:-900], "truncated"),
        (encoded(NOISE, "WEBP")[:-900], ""),
        (encoded(NOISE, "TIFF", compression="tiff_lzw")[:5000], ""),
        (b"", "zero bytes"),
        (b"<!DOCTYPE html><html>404</html>", "no known image format"),
        (png(20_000, 20_000), "decompression bomb"),
        (encoded(NOISE, "PNG")[:60] + b"\0" * 60 + encoded(NOISE, "PNG")[120:], ""),
    ],
    ids=["jpeg cut", "png cut", "webp cut", "tiff cut", "empty", "html", "bomb", "garbled"],
)
def test_unreadable_images_are_named_in_one_line(tmp_path, data, reason):
    path = tmp_path / "broken image.jpg"
    path.write_bytes(data)
    for source, name in ((path, ""), (data, "set.parquet row 7 winner")):
        with pytest.raises(ValueError) as caught:
            open_rgb(source, name=name)
        message = str(caught.value)
        assert (name or str(path)) in message and reason in message and "\n" not in message
        assert "expected a whole image" in message


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.png: got no such file"):
        open_rgb(tmp_path / "gone.png")
    with pytest.raises(ValueError, match=str(tmp_path)):
        open_rgb(tmp_path)


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        *(("JPEG", ".jpe"), ("JPEG", ".jfif"), ("MPO", ".mpo"), ("WEBP", ".webp"), ("BMP", ".bmp")),
        *(("TIFF", ".TIF"), ("GIF", ".gif"), ("AVIF", ".avif"), ("JPEG2000", ".jp2"), ("PPM", ".ppm")),
        ("TGA", ".tga"),
    ],
)
def test_formats_by_the_endings_they_go_by(tmp_path, form, suffix):
    Image.init()
    if form not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {form}")
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(Image.new("RGB", (32, 32), RED), form))
    assert suffix.lower() in ENDINGS
    assert abs(pixels(path)[9, 9].astype(int) - RED).max() < 8  # lossy formats


def test_first_image_of_an_mpo():
    other = Image.new("RGB", (8, 8), (0, 0, 255))
    data = encoded(Image.new("RGB", (8, 8), RED), "MPO", save_all=True, append_images=[other])
    assert abs(pixels(data)[4, 4].astype(int) - RED).max() < 8


@pytest.mark.parametrize("form", ["EPS", "PDF", "ICO", "PCX"])
def test_formats_that_are_not_named_are_not_opened(form):
    with pytest.raises(ValueError, match="bytes of no known image format"):
        open_rgb(encoded(Image.new("RGB", (32, 32)), form))


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40


@pytest.fixture()
def fresh_formats(monkeypatch):
    """What can be opened is looked up anew, before the test and after it."""
    monkeypatch.setattr(Image, "OPEN", {**Image.OPEN})
    images._formats.cache_clear()
    yield
    images._formats.cache_clear()


@pytest.mark.parametrize("at", ["file", "bytes"])
def test_heif_without_its_package_names_it(tmp_path, monkeypatch, fresh_formats, at):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.OPEN.pop("HEIF", None)
    path = tmp_path / "a.heic"
    path.write_bytes(HEIC)
    with pytest.raises(
        ValueError, match=r"got HEIF, which Pillow does not open here \(pip install pillow-heif"
    ):
        open_rgb(path if at == "file" else HEIC)


def test_heif_with_its_package(monkeypatch, fresh_formats):
    """A stand-in that registers a reader, as pillow-heif does; the real one is tried below where it is."""

    def opened(fp, filename):
        image = Image.new("RGB", (8, 8), RED)
        image.fp = None
        return image

    package = ModuleType("pillow_heif")
    package.register_heif_opener = lambda: Image.OPEN.update(
        {"HEIF": (opened, lambda prefix: prefix[4:12] == b"ftypheic")}
    )
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    assert (pixels(HEIC) == RED).all()


def test_heif_of_the_real_package(tmp_path, fresh_formats):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.new("RGB", (64, 32), RED)).save(tmp_path / "a.heic")
    assert abs(pixels(tmp_path / "a.heic")[9, 9].astype(int) - RED).max() < 8


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "to-pipe.jpg").symlink_to(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    reasons = {
        "pipe.jpg": "device, pipe or socket",
        "to-pipe.jpg": "device, pipe or socket",
        "folder.jpg": "a folder",
        "loop.jpg": "symbolic links",
        "dangling.jpg": "no such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=reason):
            open_rgb(tmp_path / name)
    with pytest.raises(ValueError, match="device, pipe or socket"):
        open_rgb(Path("/dev/zero"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_walk_names_links_to_pipes_and_keeps_links_that_lead_nowhere(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "to-pipe.txt").symlink_to(tmp_path / "pipe.txt")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    files, skipped = walk(tmp_path)
    assert [file.name for file in files] == ["dangling.jpg", "loop.jpg"]
    assert {kind: sorted(names) for kind, names in skipped.names.items()} == {
        "device or pipe": ["pipe.txt", "to-pipe.txt"]
    }
