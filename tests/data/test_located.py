"""Paths in tables as other systems write them."""

import json
import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from t2ialign.data.cache.keys import image_key
from t2ialign.data.located import located
from t2ialign.data.pairs import read_pairs
from t2ialign.scoring.decode import read_image
from t2ialign.scoring.prompts import Prompts, lookup
from t2ialign.scoring.rows import Columns
from t2ialign.scoring.sources import open_source

posix = pytest.mark.skipif(os.name == "nt", reason="there these are plain paths")


@pytest.fixture()
def base(tmp_path) -> Path:
    (tmp_path / "img").mkdir()
    for name in ("a.png", "b c%20.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "img" / name)
    return tmp_path


@pytest.mark.parametrize(
    "text",
    ["img/a.png", "img\\a.png", ".\\img\\a.png", " img/a.png ", "img/a.PNG", "img/../img/a.png", "file"],
)
def test_ways_to_write_a_path(base, text):
    text = (base / "img" / "a.png").as_uri() if text == "file" else text
    assert located("row 1", text, base).samefile(base / "img" / "a.png")


def test_an_address_of_a_file_is_decoded_and_a_path_is_not(base):
    file = base / "img" / "b c%20.png"
    assert located("row 1", "img/b c%20.png", base) == file
    assert located("row 1", file.as_uri(), base) == file
    assert located("row 1", "FILE://localhost" + file.as_uri().removeprefix("file://"), base) == file
    with pytest.raises(ValueError, match=r"row 1: got file://server/x\.png, a file of another machine"):
        located("row 1", "file://server/x.png", base)


@posix
def test_a_file_whose_name_has_a_backslash_comes_first(base):
    Image.new("RGB", (4, 4)).save(base / "img\\a.png")
    assert located("row 1", "img\\a.png", base) == base / "img\\a.png"


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_unicode_forms(base, forms):
    on_disk, written = (unicodedata.normalize(form, "\u00e9") for form in forms)
    Image.new("RGB", (4, 4)).save(base / f"{on_disk}.png")
    assert located("row 1", f"{written}.png", base).samefile(base / f"{on_disk}.png")


@posix
@pytest.mark.parametrize("text", ["C:\\images\\a.png", "c:/images/a.png", "\\\\server\\share\\a.png"])
def test_an_absolute_path_of_another_computer_is_refused(base, text):
    with pytest.raises(ValueError, match=r"row 1: got .*, an absolute path of a Windows computer; expected"):
        located("row 1", text, base)


def test_a_path_with_nul_is_refused_by_its_row(base):
    with pytest.raises(ValueError, match="row 1: got a path with a NUL character"):
        located("row 1", "img/a\0.png", base)


def test_a_name_that_no_file_can_have_is_an_error_of_its_row_alone(base):
    rows = [{"image": "img/a.png"}, {"image": "img/\0.png"}, {"image": "img/\ud800.png"}]
    (base / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, nul, half = open_source(str(base / "t.jsonl"), Prompts(), Columns()).items()
    assert first.error is None and nul.error is not None and "NUL" in nul.error
    with pytest.raises(ValueError, match="got"):
        read_image(half)
    assert isinstance(half.image, Path) and image_key(half.image) != image_key(base / "img" / "a.png")


def test_what_is_not_there_is_given_for_the_reader_to_name(base):
    assert located("row 1", "img\\gone.png", base) == (
        base / "img" / "gone.png" if os.name != "nt" else base / "img\\gone.png"
    )


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_pairs_and_scores_read_a_table_of_windows(base, kind):
    rows = [{"prompt": "p", "chosen": "img\\a.png", "rejected": "img\\b c%20.png"}]
    lines = [",".join(rows[0]), ",".join(rows[0].values())] if kind == "csv" else [json.dumps(rows[0])]
    (base / f"t.{kind}").write_text("\n".join(lines))
    (record,) = read_pairs(str(base / f"t.{kind}"))
    assert isinstance(record.win, Path) and record.win.samefile(base / "img" / "a.png")
    (item,) = open_source(str(base / f"t.{kind}"), Prompts(), Columns(image="chosen")).items()
    assert isinstance(item.image, Path) and item.image.samefile(base / "img" / "a.png")
    assert item.file == "img/a.png" and item.prompt == "p"


def test_a_table_of_prompts_finds_endings_and_forms_of_another_spelling():
    apart = unicodedata.normalize("NFD", "caf\u00e9")
    table = {"caf\u00e9.PNG": ["x"], "b": ["y"]}
    assert lookup(table, f"{apart}.png") == ["x"] and lookup(table, "b.jpg") == ["y"]
    assert lookup(table, "c.png") is None


@pytest.mark.parametrize("address", ["file://[bad/a.png", "file://a\u2100b/c.png", "file://\ud800/x"])
def test_an_odd_address_of_a_file_names_its_row(tmp_path, address):
    with pytest.raises(ValueError, match=r"^t line 3: got file://.*expected file:///"):
        located("t line 3", address, tmp_path)
