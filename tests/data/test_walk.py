"""Folders as people's disks have them: links, clutter, endings in capitals, two Unicode forms of one name."""

import json
import logging
import os
import sys
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from t2ialign.data.files.walk import CLUTTER, LENGTH, walk
from t2ialign.data.folder import folder_rows
from t2ialign.data.image_folder import image_folder
from t2ialign.data.images import image_of
from t2ialign.data.pairs import read_pairs
from t2ialign.data.skipped import Skipped
from t2ialign.data.sources import identity

links = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")


def image(path: Path, level: int = 9) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (level,) * 3).save(path, "PNG")
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in walk(root)[0]]


def pairs(root: Path) -> list[tuple[str, str, str]]:
    """(prompt, winner's and loser's place below the folder) of every pair."""

    def place(source: object) -> str:
        assert isinstance(source, Path)
        return source.relative_to(root).as_posix()

    return [(r.prompt, place(r.win), place(r.lose)) for r in read_pairs(str(root))]


class TestWalk:
    @links
    def test_links_are_followed_and_loops_of_them_end(self, tmp_path):
        other, root = tmp_path / "other", tmp_path / "root"
        image(other / "deep" / "b.png")
        image(root / "a.png")
        (root / "files").symlink_to(other)
        (root / "c.png").symlink_to(other / "deep" / "b.png")
        (root / "self").symlink_to(root)
        (root / "above").symlink_to(tmp_path)
        (other / "round").symlink_to(root)  # reached through root/files, and leads back to root
        files, skipped = walk(root)
        assert [file.relative_to(root).as_posix() for file in files] == ["a.png", "c.png", "files/deep/b.png"]
        assert skipped.names.keys() == {"link loop"}
        assert sorted(skipped.names["link loop"]) == ["above", "files/round", "self"]

    @links
    def test_two_folders_that_link_to_each_other(self, tmp_path):
        for one, other in (("a", "b"), ("b", "a")):
            image(tmp_path / one / "x.png")
            (tmp_path / one / "to").symlink_to(tmp_path / other)
        assert names(tmp_path) == ["a/to/x.png", "a/x.png", "b/to/x.png", "b/x.png"]

    @links
    def test_a_link_that_leads_nowhere_is_a_file_so_that_reading_it_says_so(self, tmp_path):
        (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
        assert names(tmp_path) == ["a.png"]

    @pytest.mark.parametrize("name", [*sorted(CLUTTER - {"icon\r"}), ".ipynb_checkpoints", ".git"])
    def test_clutter_is_skipped_with_all_that_is_in_it(self, tmp_path, name):
        image(tmp_path / "a.png")
        image(tmp_path / name.upper() / "sub" / "b.png")
        files, skipped = walk(tmp_path)
        assert files == [tmp_path / "a.png"]
        assert skipped.names == {"hidden or system": [name.upper()]}

    def test_a_root_that_is_hidden_itself_is_read(self, tmp_path):
        image(tmp_path / ".cache" / "a.png")
        assert names(tmp_path / ".cache") == ["a.png"]

    def test_only_what_lies_right_in_a_folder(self, tmp_path):
        image(tmp_path / "a.png")
        image(tmp_path / "sub" / "b.png")
        assert walk(tmp_path, deep=False)[0] == [tmp_path / "a.png"]

    def test_one_line_counts_what_was_skipped_and_names_some(self, tmp_path, caplog):
        image(tmp_path / "a.png")
        for name in (*(f"{i}.npz" for i in range(5)), "b" * 90 + ".json", ".hidden", "x\ny.md"):
            text(tmp_path / name, "")
        image_folder(tmp_path).note()
        (record,) = caplog.records
        message = record.getMessage()
        assert "skipped 8 files that are not images: 5 .npz (0.npz, 1.npz, ...), 1 .json (...bbb" in message
        assert "1 hidden or system (.hidden)" in message and "(x?y.md)" in message and "\n" not in message
        assert "b" * LENGTH not in message

    def test_nothing_skipped_is_nothing_said(self, tmp_path, caplog):
        image(tmp_path / "a.png")
        text(tmp_path / "a.txt", "x")
        image_folder(tmp_path).note()
        assert not caplog.records

    def test_clutter_is_no_part_of_what_a_cache_was_made_of(self, tmp_path):
        image(tmp_path / "a.png")
        before = identity(str(tmp_path))
        image(tmp_path / "@eaDir" / "a.png")
        text(tmp_path / "._a.png", "x")
        assert identity(str(tmp_path)) == before
        image(tmp_path / "b.png")
        assert identity(str(tmp_path)) != before


class TestCaptions:
    @pytest.mark.parametrize(
        ("name", "caption"), [("a.PNG", "a.TXT"), ("a.Jpg", "a.txt"), ("a.b.png", "a.b.Caption")]
    )
    def test_letter_case_of_endings_does_not_matter(self, tmp_path, name, caption):
        image(tmp_path / name)
        text(tmp_path / caption, "hello")
        folder = image_folder(tmp_path)
        assert [folder.caption(path) for path in folder.images] == ["hello"]

    @pytest.mark.parametrize("name", ["with blank", "c%20d", "e#f;g", "ends with a dot.", "x,y"])
    def test_odd_characters_of_names(self, tmp_path, name):
        image(tmp_path / f"{name}.png")
        text(tmp_path / f"{name}.txt", name)
        folder = image_folder(tmp_path)
        assert [folder.caption(path) for path in folder.images] == [name]

    def test_names_that_differ_in_case_alone_are_different(self, tmp_path):
        for name in ("a", "B"):
            image(tmp_path / f"{name}.png")
            text(tmp_path / f"{name}.txt", name)
        if (tmp_path / "b.png").exists():
            pytest.skip("this disk takes b.png for B.png")
        image(tmp_path / "b.png")
        folder = image_folder(tmp_path)
        assert [folder.caption(path) for path in folder.images] == ["B", "a", None]

    @pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
    def test_unicode_forms_of_one_name(self, tmp_path, forms):
        first, second = (unicodedata.normalize(form, "caf\u00e9") for form in forms)
        assert first != second
        image(tmp_path / f"{first}.png")
        text(tmp_path / f"{second}.txt", "coffee")
        folder = image_folder(tmp_path)
        assert [folder.caption(path) for path in folder.images] == ["coffee"]

    def test_of_two_captions_the_txt_is_read_and_the_other_one_counts_as_skipped(self, tmp_path):
        image(tmp_path / "a.png")
        text(tmp_path / "a.caption", "kohya's")
        text(tmp_path / "a.txt", "plain")
        text(tmp_path / "b.txt", "of no image")
        folder = image_folder(tmp_path)
        assert folder.caption(tmp_path / "a.png") == "plain"
        assert folder.skipped.names == {".caption beside another caption": ["a.caption"]}
        assert folder.others == [tmp_path / "b.txt"]

    def test_byte_order_mark_line_ends_and_an_encoding_that_is_not_utf8(self, tmp_path):
        image(tmp_path / "a.png")
        (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa red\r\n circle\r\n")
        assert image_folder(tmp_path).caption(tmp_path / "a.png") == "a red circle"
        (tmp_path / "a.txt").write_bytes("caf\u00e9 au lait".encode("cp1252"))
        with pytest.raises(ValueError, match=r"a\.txt line 1: .*, which is not UTF-8"):
            image_folder(tmp_path).caption(tmp_path / "a.png")


class TestPairs:
    def make(self, root: Path, sides: tuple[str, str] = ("chosen", "rejected")) -> Path:
        for side in sides:
            image(root / side / "0.png")
            text(root / side / "0.txt", "p")
        return root

    def test_clutter_latents_and_captions_of_other_names(self, tmp_path, caplog):
        root = self.make(tmp_path)
        image(root / "chosen" / ".ipynb_checkpoints" / "0-checkpoint.png")
        image(root / "rejected" / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB.jpg")
        for name in ("0_sd.npz", "0.json", "._0.png"):
            text(root / "chosen" / name, "x")
        assert pairs(root) == [("p", "chosen/0.png", "rejected/0.png")]
        notes = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
        assert len(notes) == 2
        assert "chosen: skipped 4 files" in notes[0] and "rejected: skipped 1 file that" in notes[1]

    def test_caption_files_of_kohya(self, tmp_path):
        root = self.make(tmp_path)
        for side in ("chosen", "rejected"):
            (root / side / "0.txt").rename(root / side / "0.caption")
        assert pairs(root) == [("p", "chosen/0.png", "rejected/0.png")]

    def test_what_is_wrong_with_a_pair_of_a_folder_is_counted_by_kind(self, tmp_path):
        root = self.make(tmp_path)
        image(root / "chosen" / "alone.png")
        for side in ("chosen", "rejected"):
            image(root / side / "silent.png")
        skipped = Skipped(str(root))
        assert [record.prompt for record in read_pairs(str(root), skipped=skipped)] == ["p"]
        line = skipped.summary()
        assert line.startswith("2 of 3 rows left out: 1 without a partner (first: got 1 images without a par")
        assert "; 1 without a prompt (first: got 1 pairs without a caption" in line

    def test_names_of_the_two_folders_in_capitals(self, tmp_path):
        root = self.make(tmp_path, ("Chosen", "REJECTED"))
        text(root / "Metadata.JSONL", '{"file_name": "Chosen\\\\0.PNG", "text": "of the table"}')
        assert pairs(root) == [("of the table", "Chosen/0.png", "REJECTED/0.png")]
        if not (root / "chosen").exists():
            self.make(root)
            with pytest.raises(ValueError, match=r"got both .*Chosen and .*chosen; expected one folder"):
                pairs(root)

    def test_unicode_forms_and_endings_differ_between_the_two_and_in_the_table(self, tmp_path):
        composed, apart = (unicodedata.normalize(form, "\u00e9") for form in ("NFC", "NFD"))
        image(tmp_path / "chosen" / f"{composed}.PNG")
        image(tmp_path / "rejected" / f"{apart}.jpg")
        text(tmp_path / "captions.jsonl", json.dumps({"file_name": f"{apart}.png", "text": "p"}))
        ((prompt, _, _),) = pairs(tmp_path)
        assert prompt == "p"

    @links
    def test_links_to_folders_and_to_images_elsewhere(self, tmp_path):
        source, root = self.make(tmp_path / "source"), tmp_path / "root"
        (root / "rejected").mkdir(parents=True)
        (root / "chosen").symlink_to(source / "chosen")
        (root / "rejected" / "0.png").symlink_to(source / "rejected" / "0.png")
        assert pairs(root) == [("p", "chosen/0.png", "rejected/0.png")]

    def test_one_name_with_two_endings_is_refused(self, tmp_path):
        image(self.make(tmp_path) / "chosen" / "0.jpg")
        with pytest.raises(
            ValueError, match=r"got both .*0\.jpg and .*0\.png; expected one image of each name"
        ):
            pairs(tmp_path)

    def test_what_is_wrong_comes_first_and_the_rest_may_be_read_all_the_same(self, tmp_path):
        root = self.make(tmp_path)
        for side in ("chosen", "rejected"):
            for name in ("silent", "foreign", "twice"):
                image(root / side / f"{name}.png")
                text(root / side / "twice.txt", "t")
        image(root / "chosen" / "alone.png")
        image(root / "chosen" / "twice.jpg")
        (root / "chosen" / "foreign.txt").write_bytes(b"\xff")
        rows = dict(folder_rows(root))
        problems = {where.rpartition(" ")[2]: str(row["chosen"]) for where, row in list(rows.items())[:-1]}
        assert problems.keys() == {"alone", "foreign", "silent", "twice"}
        assert "1 images without a partner" in problems["alone"] and "not UTF-8" in problems["foreign"]
        assert "1 pairs without a caption" in problems["silent"] and "got both" in problems["twice"]
        assert rows[f"{root} pair 0"]["prompt"] == "p"
        for where, row in rows.items():
            if where != f"{root} pair 0":
                with pytest.raises(ValueError, match="got"):
                    image_of(where, row["rejected"], root)

    @pytest.mark.parametrize("extra", [None, "README.md", "captions.jsonl"])
    def test_folders_of_other_names_are_told_the_expected_ones(self, tmp_path, extra):
        root = self.make(tmp_path, ("winners", "losers"))
        if extra:
            text(root / extra, '{"file_name": "0.png", "text": "p"}')
        with pytest.raises(ValueError, match=r"with losers/, winners/; expected sub-folders chosen/ and rej"):
            pairs(root)

    def test_an_archive_is_to_be_unpacked(self, tmp_path):
        with pytest.raises(ValueError, match=r"pairs\.zip; expected .*; unpack it"):
            pairs(text(tmp_path / "pairs.zip", "PK"))

    def test_what_macos_leaves_beside_a_parquet_file(self, tmp_path, caplog):
        content = image(tmp_path / "a.png").read_bytes()
        (tmp_path / "a.png").unlink()
        columns = {"prompt": ["p"], "chosen": [content], "rejected": [content]}
        pq.write_table(pa.table(columns), tmp_path / "train.PARQUET")
        text(tmp_path / "._train.parquet", "AppleDouble")
        with caplog.at_level(logging.WARNING, "t2ialign"):
            assert [record.prompt for record in read_pairs(str(tmp_path))] == ["p"]
        assert "1 hidden or system (._train.parquet)" in caplog.text


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_counted(tmp_path):
    image(tmp_path / "a.png")
    (tmp_path / "closed").mkdir(mode=0)
    files, skipped = walk(tmp_path)
    assert files == [tmp_path / "a.png"] and skipped.names == {"unreadable folder": ["closed"]}
