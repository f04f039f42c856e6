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
from tests.scoring.images import plain, png, tar

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


LONG = f"{'d' * 60}/{'e' * 50}/"
"""Folders after which no name fits into a header."""


def long_archive(path: Path, kind: int) -> bytes:
    with tarfile.open(path, "w", format=kind) as file:
        for number, image in enumerate(IMAGES):
            for name, content in ((f"{number}.png", image), (f"{number}.txt", b"prompt %d" % number)):
                info = tarfile.TarInfo(LONG + name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return path.read_bytes()


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_damaged_bit_of_a_long_name_loses_nothing_in_silence(tmp_path, kind, caplog):
    """Such a name has no checksum: only what the short name beside it lacks may change, and that is told."""
    whole, path = long_archive(tmp_path / "s.tar", kind), tmp_path / "bit.tar"
    assert read(tmp_path / "s.tar") == (WHOLE, []) and not caplog.records
    with tarfile.open(tmp_path / "s.tar") as file:
        members = file.getmembers()[2:4]
    bits = [bit for m in members for bit in range(8 * m.offset, 8 * m.offset_data)]
    errors_of = 0
    for bit in bits[::23]:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        caplog.clear()
        images, errors = read(path)
        assert images == WHOLE or errors or caplog.records, bit
        errors_of += bool(errors)
    assert errors_of > 0.9 * len(bits[::23])


@pytest.mark.parametrize(
    "records",
    [
        b"",  # without the path that the header's short name is the start of, it is another file
        b"12 path=ab\n",
        b"30 mtime=1.5\n",
        b"13 pauh=abcd\n",
        b"13 mtime=1x5\n",
        b"13 path=\xffbcd\n",
    ],
)
def test_damaged_records_of_pax_are_errors(tmp_path, records):
    whole = long_archive(tmp_path / "s.tar", tarfile.PAX_FORMAT)
    with tarfile.open(tmp_path / "s.tar") as file:
        start = file.getmembers()[2].offset
    record = whole.index(b" path=", start) - 3
    size = int(whole[record : record + 3])
    old = whole[record : record + size]
    new = records.ljust(size, b"\0") if records else old.replace(b"/1.png", b"/\xc3\x281.p")[:size]
    (tmp_path / "bad.tar").write_bytes(whole[:record] + new + whole[record + size :])
    images, errors = read(tmp_path / "bad.tar")
    assert images == WHOLE[:1] and "expected a whole archive" in errors[0]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_language_and_length_are_read(tmp_path, kind):
    names = ["caf\u00e9-\u65e5\u672c.png", "a b'c.png", f"{'x' * 90}.png", f"{'y' * 80}/{'z' * 90}.png"]
    names += [] if kind == tarfile.USTAR_FORMAT else ["\u65e5" * 60 + "/" + "e" * 120 + "/1.png"]
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", format=kind, pax_headers={"comment": "of all"}) as file:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(IMAGES[0]), 1.5
            file.addfile(info, io.BytesIO(IMAGES[0]))
    items = list(tars.source("s", [path], Prompts()).items())
    assert [item.file for item in items] == [f"s.tar/{name}" for name in names]
    assert not any(item.error for item in items)


def test_a_long_name_of_a_gigabyte_is_refused_before_it_is_read(tmp_path):
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    (tmp_path / "s.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4 * BLOCK))
    images, errors = read(tmp_path / "s.tar")
    assert not images and "got a long name of 1073741824 bytes" in errors[0]


def test_what_has_lost_its_partner_is_told(tmp_path, caplog):
    """A name that is damaged in its ending, in its stem, or so that it is hidden."""
    members = {f"{n}.{kind}": b"prompt" for n in range(9) for kind in ("png", "txt")}
    members = {name: IMAGES[0] if name.endswith("png") else text for name, text in members.items()}
    shard = tar(tmp_path / "whole.tar", members)
    assert len(read(shard)[0]) == 9 and not caplog.records
    renamed = {"3.png": "3.pnf", "5.txt": "4x.txt", "7.png": ".7.png"}
    damaged = {renamed.get(name, name): content for name, content in members.items()}
    images, errors = read(tar(tmp_path / "s.tar", damaged))
    assert [prompt for _, prompt in images].count(None) == 1 and len(images) == 7
    assert errors == ["s.tar/3: got .pnf and no image; expected one, as others have; correct the shard"]
    said = caplog.text
    assert "1 images without a caption, where 6 have both: 5.png" in said
    assert "2 captions without an image, where 6 have both: 4x, 7" in said
    assert "skipped 1 file that is not an image: 1 hidden or system (.7.png)" in said


@pytest.mark.parametrize("first", [0, 2])
def test_zeros_in_the_place_of_members_are_no_end(tmp_path, first):
    """A disk that lost blocks gives zeros, and an archive ends with zeros too: at most a record of them."""
    whole = archive(tmp_path / "s.tar")
    with tarfile.open(tmp_path / "s.tar") as file:
        start = file.getmembers()[first].offset
    (tmp_path / "s.tar").write_bytes(whole[:start] + bytes(3 * tarfile.RECORDSIZE))
    images, errors = read(tmp_path / "s.tar")
    assert images == WHOLE[: first // 2] and "bytes of zeros where at most 10240 end an archive" in errors[-1]
