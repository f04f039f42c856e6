"""Decoding: each image once, each size once, in worker processes as here; what is broken says why."""

import struct
import subprocess
import sys
import zlib
from collections import Counter

import pytest
import torch
from PIL import Image

from rewards import Geometry
from rewards.preprocess import CLIP_224
from t2ialign.scoring import decode
from t2ialign.scoring.decode import Decoder, Images, load, read_image
from t2ialign.scoring.items import Item
from t2ialign.scoring.prompts import Prompts
from t2ialign.scoring.rows import Columns
from t2ialign.scoring.sources import open_source
from tests.scoring.images import PADDED, SQUARE, plain, png, reds


def item(row: int, image: object, **other: object) -> Item:
    return Item(0, row, f"{row}.png", "x", image, **other)  # type: ignore[arg-type]


def header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


NOISE = png(Image.effect_noise((64, 64), 50))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "zero bytes"),
        (NOISE[:-900], "truncated"),
        (b"<html>404</html>", "no known image format"),
        (header(20_000, 20_000), "decompression bomb"),
        (header(10_000, 10_000), "decompression bomb"),
    ],
    ids=["empty", "cut", "html", "bomb", "half a bomb, of which Pillow only warns"],
)
def test_a_broken_image_is_an_error_text(tmp_path, data, reason):
    path = tmp_path / "7.png"
    path.write_bytes(data)
    for source in (data, path):
        batch = Decoder([SQUARE], raw=True).decode([item(7, source)])
        assert not batch.good and not batch.raw and not batch.prepared
        error = batch.items[0].error
        assert error is not None and "7.png" in error and reason in error and "\n" not in error


def test_the_limit_of_pixels_is_pillows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(item(0, png(plain(1, size=(10, 10))))).size == (10, 10)
    with pytest.raises(ValueError, match="decompression bomb"):
        read_image(item(0, png(plain(1, size=(10, 11)))))


def test_a_strip_that_would_grow_beyond_the_limit_is_an_error_before_it_grows():
    strip = png(plain(1, size=(60_000, 1)))
    batch = Decoder([CLIP_224], raw=False).decode([item(0, strip), item(1, png(plain(1)))])
    assert batch.good == [1]
    assert "60000x1 pixels, 13440000x224 when scaled" in str(batch.items[0].error)
    assert Decoder([SQUARE], raw=False).decode([item(0, strip)]).good == [0], "squashed it stays small"


@pytest.fixture
def counts(monkeypatch) -> Counter:
    """Decodes by "decode" and resizes by size."""
    counts: Counter = Counter()
    plainly, resize = decode.open_rgb, Geometry.reference

    def opened(*args, **options):
        counts["decode"] += 1
        return plainly(*args, **options)

    def resized(self, image):
        counts[self.size] += 1
        return resize(self, image)

    monkeypatch.setattr(decode, "open_rgb", opened)
    monkeypatch.setattr(Geometry, "reference", resized)
    return counts


def test_one_decode_an_image_and_one_resize_an_image_and_geometry(counts):
    images = [png(plain(red)) for red in range(5)]
    items = [item(row, images[row]) for row in range(5)]
    again = [Item(0, 5 + row, "3.png", f"prompt {row}", images[3]) for row in range(2)]
    batch = Decoder([SQUARE, PADDED], raw=True).decode([*items, *again])
    assert counts == {"decode": 5, SQUARE.size: 5, PADDED.size: 5}
    assert batch.prepared[SQUARE].shape == (7, 3, 8, 8) and batch.prepared[PADDED].shape == (7, 3, 6, 6)
    for row in (5, 6):
        assert torch.equal(batch.prepared[SQUARE][row], batch.prepared[SQUARE][3])
        assert torch.equal(batch.raw[row], batch.raw[3])
    assert all(one.image is None for one in batch.items), "bytes do not travel back"


def test_raw_pixels_are_those_of_the_file():
    batch = Decoder([], raw=True).decode([item(0, png(plain(1, 2, 3, (4, 5))))])
    assert batch.raw[0].dtype == torch.uint8 and batch.raw[0].shape == (5, 4, 3)
    assert (batch.raw[0] == torch.tensor([1, 2, 3], dtype=torch.uint8)).all()


def batches_of(root, workers: int, size: int = 3, drawn: list | None = None) -> list[Images]:
    items = list(open_source(str(root), Prompts(), Columns()).items())
    groups = (items[start : start + size] for start in range(0, len(items), size))

    def watched():
        for group in groups:
            if drawn is not None:
                drawn.append(len(group))
            yield group

    return list(load(watched(), Decoder([SQUARE], raw=True), workers=workers))


def test_worker_processes_give_the_same_batches_in_the_same_order(tmp_path):
    reds(tmp_path, 10)
    (tmp_path / "004.png").write_bytes(b"")
    here, there = batches_of(tmp_path, 0), batches_of(tmp_path, 2)
    assert len(here) == len(there) == 4
    for one, two in zip(here, there, strict=True):
        assert one.items == two.items and one.good == two.good
        assert torch.equal(one.prepared[SQUARE], two.prepared[SQUARE])
        assert all(torch.equal(a, b) for a, b in zip(one.raw, two.raw, strict=True))
    assert "zero bytes" in str(here[1].items[1].error) and here[1].good == [0, 2]


@pytest.mark.rest
def test_decoding_imports_no_library_of_models_or_tables():
    """A worker process may start from nothing, and then pays for every import."""
    heavy = [
        "transformers",
        "diffusers",
        "open_clip",
        "torchvision",
        "pyarrow",
        "pandas",
        "datasets",
        "scipy",
    ]
    code = (
        "import sys\nimport t2ialign.scoring.decode\n"
        f"found = set({heavy}) & set(sys.modules)\nsys.exit(f'imported {{found}}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_batches_are_drawn_only_so_far_ahead(tmp_path):
    reds(tmp_path, 30)
    items = list(open_source(str(tmp_path), Prompts(), Columns()).items())
    drawn = []

    def watched():
        for one in items:
            drawn.append(one)
            yield [one]

    stream = load(watched(), Decoder([SQUARE], raw=False), workers=2)
    next(stream)
    assert len(drawn) <= 2 * decode.AHEAD + 1
    assert len(list(stream)) == 29
