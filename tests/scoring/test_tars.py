"""Shards of .tar files that broke off or were damaged: what is lost is always named."""

import bz2
import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pytest

from t2ialign.scoring import tars
from t2ialign.scoring.prompts import Prompts
from t2ialign.scoring.tar_headers import BLOCK
from tests.scoring.pictures import plain, png, tar

IMAGES = [png(plain(shade, size=(8, 8))) for shade in (10, 20, 30)]


def archive(path: Path) -> bytes:
    members: dict[str, bytes] = {}
    for number, image in enumerate(IMAGES):
        members |= {f"{number}.png": image, f"{number}.txt": f"prompt {number}".encode()}
    return tar(path, members).read_bytes()


def read(path: Path) -> tuple[list[tuple[bytes, str | None]], list[str]]:
    items = list(tars.source(str(path), [path], Prompts()).items())
    images = [(item.image, item.prompt) for item in items if isinstance(item.image, bytes)]
    return images, [item.error for item in items if item.error]


WHOLE = [(image, f"prompt {number}") for number, image in enumerate(IMAGES)]


def test_every_cut_of_a_shard_is_a_row_with_an_error(tmp_path):
    whole, path = archive(tmp_path / "s.tar"), tmp_path / "cut.tar"
    with tarfile.open(tmp_path / "s.tar") as file:
        last = file.getmembers()[-1]
        end = last.offset_data + BLOCK + 2 * BLOCK  # a prompt is one block
        starts = [member.offset for member in file.getmembers()[::2]]
    for size in range(0, len(whole), BLOCK):
        path.write_bytes(whole[:size])
        images, errors = read(path)
        assert bool(errors) == (size < end), size
        assert images == WHOLE[: len(images)]
        assert len(images) >= sum(start < size for start in starts) - 1


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_damaged_bit_of_a_header_is_harmless_or_a_row_with_an_error(tmp_path, kind):
    with tarfile.open(tmp_path / "s.tar", "w", format=kind) as file:
        for number, image in enumerate(IMAGES):
            for name, content in ((f"{number}.png", image), (f"{number}.txt", b"prompt %d" % number)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    with tarfile.open(tmp_path / "s.tar") as file:
        start = file.getmember("1.png").offset
    whole, path = (tmp_path / "s.tar").read_bytes(), tmp_path / "bit.tar"
    harmless = 0
    for bit in range(8 * BLOCK):
        damaged = bytearray(whole)
        damaged[start + bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        images, errors = read(path)
        assert images == WHOLE or (errors and images == WHOLE[:1]), bit
        harmless += images == WHOLE
    assert harmless < 16  # the blanks that end the checksum


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_shards_that_end_early_or_are_damaged_inside(tmp_path, pack):
    ending = {"gzip": "gz", "bz2": "bz2", "lzma": "xz"}[pack.__module__.strip("_")]
    whole, path = archive(tmp_path / "s.tar"), tmp_path / f"s.tar.{ending}"
    with tarfile.open(tmp_path / "s.tar") as file:
        start = file.getmember("1.png").offset
    path.write_bytes(pack(whole))
    assert read(path) == (WHOLE, [])
    path.write_bytes(pack(whole[:start]))
    images, errors = read(path)
    assert images == WHOLE[:1] and "expected a whole archive" in errors[0]
    path.write_bytes(pack(whole[: start + 5] + b"#" + whole[start + 6 :]))
    images, errors = read(path)
    assert images == WHOLE[:1] and "bad checksum" in errors[0]
    packed = pack(whole)
    for size in range(0, len(packed), 7):
        path.write_bytes(packed[:size])
        images, errors = read(path)
        assert images == WHOLE or errors, size


def test_zeros_in_the_middle_are_no_end_and_neither_are_joined_shards(tmp_path):
    whole, path = archive(tmp_path / "s.tar"), tmp_path / "t.tar"
    with tarfile.open(tmp_path / "s.tar") as file:
        start, after = file.getmember("1.png").offset, file.getmember("2.png").offset
    path.write_bytes(whole[:start] + bytes(after - start) + whole[after:])  # a download with a hole
    images, errors = read(path)
    assert images == WHOLE[:1] and "data after the end" in errors[0]
    path.write_bytes(whole + whole)
    images, errors = read(path)
    assert images == WHOLE and "data after the end" in errors[0]


def test_an_image_whose_prompt_may_be_lost_is_not_scored_without_one(tmp_path):
    whole, path = archive(tmp_path / "s.tar"), tmp_path / "cut.tar"
    with tarfile.open(tmp_path / "s.tar") as file:
        text = file.getmember("1.txt").offset
    path.write_bytes(whole[:text])
    images, errors = read(path)
    assert images == WHOLE[:1] and errors
    bare = tar(tmp_path / "bare.tar", {f"{number}.png": image for number, image in enumerate(IMAGES)})
    with tarfile.open(bare) as file:
        start = file.getmember("2.png").offset
    bare.write_bytes(bare.read_bytes()[:start])
    images, errors = read(bare)
    assert images == [(image, None) for image in IMAGES[:2]] and errors


def test_an_empty_shard_has_no_rows(tmp_path):
    assert read(tar(tmp_path / "s.tar", {})) == ([], [])
