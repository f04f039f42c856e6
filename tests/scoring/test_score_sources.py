"""Where images and prompts come from: every layout gives the same items, none is dropped in silence."""

import json
import logging
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2ialign.data.remote import Remote
from t2ialign.io import jsonl, manifest
from t2ialign.scoring import ray_data
from t2ialign.scoring.items import Item, Source
from t2ialign.scoring.prompts import Prompts, from_name, parse_prompts
from t2ialign.scoring.rows import Columns
from t2ialign.scoring.sources import open_source
from tests.scoring.images import folder, plain, png, reds, tar


def read(text: object, prompts: str | None = None, *, names: bool = False, **columns: str) -> list[Item]:
    source = open_source(str(text), parse_prompts(prompts, names=names), Columns(**columns))
    return list(source.items())


def pairs(items: list[Item]) -> list[tuple[str, str | None]]:
    return [(item.file, item.prompt) for item in items]


def test_a_folder_with_texts_beside_images(tmp_path, caplog):
    folder(
        tmp_path,
        {"b.png": (plain(1), "second"), "a/x.jpg": (plain(2), "first\nline"), "c.webp": (plain(3), None)},
    )
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "weights.safetensors").write_bytes(b"")
    with caplog.at_level(logging.INFO, "t2ialign"):
        items = read(tmp_path)
    assert pairs(items) == [("a/x.jpg", "first line"), ("b.png", "second"), ("c.webp", None)]
    assert [(item.shard, item.row) for item in items] == [(0, 0), (0, 1), (0, 2)]
    assert len({item.identity for item in items}) == 3
    assert (
        "skipped 2 files that are not images: 1 .safetensors (weights.safetensors), "
        "1 hidden or system (.hidden.png)" in caplog.text
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_table_of_prompts_rules_the_folder(tmp_path, suffix, caplog):
    folder(
        tmp_path / "images",
        {name: (plain(9), "not read") for name in ("a.png", "b.jpg", "sub/c.png", "d.png")},
    )
    rows = [
        ("sub/c.png", "third"),
        ("a", "no ending"),
        ("a.png", "twice"),
        ("a.png", "twice"),
        ("gone.png", "x"),
    ]
    path = tmp_path / f"prompts{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps({"file_name": f, "prompt": p}) + "\n" for f, p in rows))
    elif suffix == ".csv":
        path.write_text("path,caption\n" + "".join(f"{f},{p}\n" for f, p in rows))
    else:
        pq.write_table(pa.table({"file": [f for f, _ in rows], "text": [p for _, p in rows]}), path)
    items = read(tmp_path / "images", str(path))
    assert sorted(pairs(items)) == sorted(rows)
    assert len({item.identity for item in items}) == len(rows), "equal rows are told apart"
    gone = next(item for item in items if item.file == "gone.png")
    assert gone.image == tmp_path / "images" / "gone.png", "reading it will say that it is not there"
    assert "2 images have no row in the table of prompts and are not scored" in caplog.text


def test_a_name_that_fits_two_images_is_an_error_of_that_row(tmp_path):
    folder(tmp_path / "i", {"a.png": (plain(1), None), "a.jpg": (plain(2), None), "b.png": (plain(3), None)})
    (tmp_path / "p.jsonl").write_text('{"file": "a", "prompt": "x"}\n{"file": "b", "prompt": "y"}\n')
    bad, good = read(tmp_path / "i", str(tmp_path / "p.jsonl"))
    assert bad.error and "a.jpg and a.png" in bad.error and bad.image is None
    assert good.error is None


def test_one_image_is_that_image_alone_whatever_a_table_lists(tmp_path, monkeypatch, caplog):
    root = folder(tmp_path / "i", {name: (plain(1), "beside") for name in ("a.png", "b.png", "c.png")})
    lines = [("b.png", "B"), ("a.png", "A"), ("a", "again"), ("a.png", "A"), ("other/a.png", "not it")]
    text = "".join(json.dumps({"file_name": file, "text": text}) + "\n" for file, text in lines)
    (root / "metadata.jsonl").write_text(text)
    listed = [("a.png", "A"), ("a.png", "A"), ("a.png", "again")]
    assert pairs(read(root / "a.png")) == listed
    assert len({item.identity for item in read(root / "a.png")}) == 3, "equal rows are told apart"
    assert pairs(read(root / "c.png")) == [("c.png", "beside")], "not in the table: its own text"
    (tmp_path / "above.jsonl").write_text('{"file": "i/b.png", "prompt": "x"}\n')
    assert pairs(read(root / "b.png", str(tmp_path / "above.jsonl"))) == [("b.png", "x")]
    assert pairs(read(root / "a.png", str(tmp_path / "above.jsonl"))) == [("a.png", None)]
    monkeypatch.chdir(root)
    assert pairs(read("a.png")) == listed
    assert pairs(read("a.png", "a dog")) == [("a.png", "a dog")]
    assert pairs(read("b.png", str(tmp_path / "above.jsonl"))) == [("b.png", "x")]
    assert not caplog.records, "no note about the others"


def test_captions_in_the_folder_itself(tmp_path):
    folder(tmp_path, {"a.png": (plain(1), None), "b.png": (plain(1), None)})
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "b.png", "text": "B"}\n{"file_name": "a.png", "text": "A"}\n'
    )
    assert pairs(read(tmp_path)) == [("b.png", "B"), ("a.png", "A")]


def test_one_prompt_for_all_and_prompts_from_names(tmp_path):
    folder(tmp_path, {"a_red-cat_0001.png": (plain(1), "beside"), "42.png": (plain(1), None)})
    assert {item.prompt for item in read(tmp_path, "a dog")} == {"a dog"}
    assert [item.prompt for item in read(tmp_path, names=True)] == ["42", "a red cat"]


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("x/two_cats.png", "two cats"),
        ("a-b__c (2).jpg", "a b c"),
        ("3 cats 001 02.png", "3 cats"),
        ("00012.png", "00012"),
    ],
)
def test_names_become_words(name, prompt):
    assert from_name(name) == prompt


def test_a_manifest_is_read_by_itself_or_in_its_folder(tmp_path):
    folder(tmp_path, {"0.png": (plain(1), None), "1.png": (plain(1), None), "grid.png": (plain(1), None)})
    jsonl.append(
        tmp_path / manifest.NAME, [{"file": f"{i}.png", "prompt": f"p{i}", "seed": i} for i in (1, 0)]
    )
    for source in (tmp_path, tmp_path / manifest.NAME):
        assert pairs(read(source)) == [("1.png", "p1"), ("0.png", "p0")]
    assert read(tmp_path)[0].image == tmp_path / "1.png"


def write_parquet(path: Path, rows: list[tuple[bytes | None, str | None]], column: str = "image") -> Path:
    images = [{"bytes": content, "path": "same.png"} for content, _ in rows]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({column: pa.array(images, kind), "caption": [text for _, text in rows]}), path)
    return path


def test_parquet_with_image_bytes(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", [(png(plain(1)), "one"), (png(plain(2)), None)])
    items = read(path)
    assert pairs(items) == [("a.parquet#0", "one"), ("a.parquet#1", None)]
    assert items[0].image == png(plain(1))
    assert open_source(str(path), Prompts(), Columns()).count == 2


def test_parquet_shards_of_a_folder_and_of_one_split(tmp_path):
    for split, count in (("train", 2), ("test", 1)):
        for number in range(count):
            write_parquet(tmp_path / f"{split}-{number}.parquet", [(png(plain(number)), split)] * 2, "jpg_0")
    items = read(tmp_path, image="jpg_0")
    assert [(item.shard, item.row, item.file) for item in items] == [
        *((0, 0, "train-0.parquet#0"), (0, 1, "train-0.parquet#1")),
        *((1, 0, "train-1.parquet#0"), (1, 1, "train-1.parquet#1")),
    ]
    assert len({item.identity for item in items}) == 4
    assert pairs(read(tmp_path, image="jpg_0", split="test"))[0] == ("test-0.parquet#0", "test")


def test_a_shard_that_is_cut_is_one_row_with_an_error_and_the_others_are_read(tmp_path):
    for number in range(3):
        write_parquet(tmp_path / f"train-{number}.parquet", [(png(plain(number)), "x")] * 2)
    cut = tmp_path / "train-1.parquet"
    cut.write_bytes(cut.read_bytes()[:-20])
    items = read(tmp_path)
    assert [item.file for item in items] == [
        "train-0.parquet#0",
        "train-0.parquet#1",
        "train-1.parquet",
        *(f"train-2.parquet#{row}" for row in (0, 1)),
    ]
    assert items[2].error and "train-1.parquet" in items[2].error


def test_a_table_of_files_and_a_column_by_name(tmp_path):
    folder(tmp_path / "images", {"a.png": (plain(1), None)})
    (tmp_path / "t.csv").write_text("n,file,what\n1,images/a.png,hello\n2,images/a.png,hello\n")
    one, two = read(tmp_path / "t.csv", prompt="what")
    assert one.image == tmp_path / "images/a.png" and one.prompt == "hello"
    assert (one.repeat, two.repeat) == (0, 1) and one.identity != two.identity


@pytest.mark.parametrize("columns", [{"image": "photo"}, {"prompt": "words"}])
def test_a_column_that_is_not_there(tmp_path, columns):
    path = write_parquet(tmp_path / "a.parquet", [(png(plain(1)), "x")])
    with pytest.raises(
        ValueError, match=rf"got columns image, caption; expected {next(iter(columns.values()))};"
    ):
        read(path, **columns)


def test_cells_that_hold_no_image_are_rows_with_an_error(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", [(png(plain(1)), "x")])
    pq.write_table(pa.table({"image": pa.array([None, b"x"], pa.binary()), "caption": ["a", "b"]}), path)
    empty, junk = read(path)
    assert empty.error and "expected a path, bytes or an image" in empty.error
    assert junk.error is None, "what the bytes are is seen when they are decoded"


def test_a_data_set_of_the_library(tmp_path):
    data = datasets.Dataset.from_dict(
        {"image": [plain(5), plain(6)], "text": ["a", "b"]},
        features=datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")}),
    )
    data.save_to_disk(str(tmp_path / "saved"))
    items = read(tmp_path / "saved")
    assert [item.prompt for item in items] == ["a", "b"]
    assert isinstance(items[0].image, bytes)


def test_shards_of_members_with_one_key(tmp_path):
    members = {
        "a/0001.jpg": png(plain(1)),
        "a/0001.txt": b"first\n",
        "a/0002.png": png(plain(2)),
        "a/0002.json": json.dumps({"caption": "second", "width": 3}).encode(),
        "b.seg.png": png(plain(3)),
        "b.png": png(plain(4)),
        "b.txt": b"\xff\xfe\x00",
        "c.txt": b"no image",
    }
    tar(tmp_path / "s-000.tar", members)
    tar(tmp_path / "s-001.tar.gz", {"x.png": png(plain(9))}, "w:gz")
    items = read(tmp_path / "s-{000..000}.tar")
    assert pairs(items) == [
        *(("s-000.tar/a/0001.jpg", "first"), ("s-000.tar/a/0002.png", "second")),
        *(("s-000.tar/b.seg.png", None), ("s-000.tar/b.png", None)),
    ]
    assert items[3].error and "not UTF-8" in items[3].error
    whole = read(tmp_path)
    assert [item.file for item in whole[4:]] == ["s-001.tar.gz/x.png"] and whole[4].shard == 1
    assert [item.prompt for item in read(tmp_path / "s-*.tar.gz", names=True)] == ["x"]


@pytest.mark.parametrize("cut", [1, 700, 2000])
def test_a_torn_archive_says_so_after_its_last_whole_image(tmp_path, cut):
    path = tar(tmp_path / "s.tar", {f"{i}.png": png(plain(i, size=(40, 40))) for i in range(30)})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 // 512 * 512 + cut])
    *good, last = read(path, "x")
    assert good and all(item.error is None for item in good)
    assert last.file == "s.tar" and last.error and "expected a whole archive" in last.error


def test_a_table_of_prompts_for_shards(tmp_path):
    tar(tmp_path / "s.tar", {"1.png": png(plain(1)), "2.png": png(plain(2))})
    (tmp_path / "p.csv").write_text("key,prompt\n1,one\n1,uno\n")
    items = read(tmp_path / "s.tar", str(tmp_path / "p.csv"))
    assert pairs(items) == [("s.tar/1.png", "one"), ("s.tar/1.png", "uno"), ("s.tar/2.png", None)]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_shards_if_there_are_enough_and_rows_else(tmp_path, world):
    for shard in range(2):
        tar(tmp_path / f"{shard}.tar", {f"{i}.png": png(plain(i)) for i in range(5)})
    source = open_source(str(tmp_path), Prompts(), Columns())
    shares = [list(source.items(rank, world)) for rank in range(world)]
    everything = sorted(item.identity for share in shares for item in share)
    assert everything == sorted(item.identity for item in source.items())
    assert len(set(everything)) == 10
    if world == 2:
        assert [{item.shard for item in share} for share in shares] == [{0}, {1}]


def test_identity_follows_what_is_scored_and_not_its_place(tmp_path):
    reds(tmp_path, 2)
    before = read(tmp_path)
    folder(tmp_path, {"000a.png": (plain(7), "new")})
    after = {item.file: item for item in read(tmp_path)}
    assert after["001.png"].row == 2 and after["001.png"].identity == before[1].identity
    (tmp_path / "001.txt").write_text("another prompt")
    plain(99, size=(30, 30)).save(tmp_path / "000.png")
    again = {item.file: item for item in read(tmp_path)}
    assert again["001.png"].identity != before[1].identity, "the prompt counts"
    assert again["000.png"].identity != before[0].identity, "the file counts"


@pytest.mark.parametrize(
    ("source", "prompts", "message"),
    [
        ("{tmp}/none", None, "does not exist"),
        ("{tmp}/none.parquet", None, "does not exist"),
        ("{tmp}/s-*.tar", None, "does not exist; expected .tar shards"),
        ("{tmp}/s-{{0..1}}.tar", None, "s-0.tar, which does not exist"),
        ("{tmp}", None, "got no images in"),
        ("{tmp}/x.bin", None, "expected an image, a .tar shard or a table"),
        ("{tmp}", "{tmp}/list.txt", "which names no images"),
        ("{tmp}", "{tmp}/none.csv", "which is no file"),
        ("{tmp}", "{tmp}/p.csv", "got columns prompt, n; expected a file"),
        ("{tmp}", "{tmp}/empty.jsonl", "got no rows in"),
        ("{tmp}", " ", "got an empty text as prompts"),
        ("{tmp}", "{tmp}/book.xlsx", "CSV UTF-8"),
        ("{tmp}", "{tmp}/number.jsonl", "line 1: got prompt 3; expected text"),
        ("{tmp}/p.csv", "{tmp}/good.csv", "whose rows carry their own"),
    ],
)
def test_what_does_not_open_is_one_line(tmp_path, source, prompts, message):
    (tmp_path / "x.bin").write_bytes(b"x")
    (tmp_path / "p.csv").write_text("prompt,n\na,1\n")
    (tmp_path / "good.csv").write_text("file,prompt\na,1\n")
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "number.jsonl").write_text('{"file": "a.png", "prompt": 3}\n')
    (tmp_path / "list.txt").write_text("a\n")
    with pytest.raises(ValueError, match=message) as caught:
        read(source.format(tmp=tmp_path), prompts and prompts.format(tmp=tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_an_empty_prompt_is_none_in_a_table_of_images_and_in_one_of_prompts(tmp_path, ending):
    """So that a reward that needs one reports the row, and no image is scored against "nan"."""
    folder(tmp_path / "images", {f"{i}.png": (plain(i), None) for i in range(5)})
    texts: list[str | None] = ["a cat", None, " ", "nan", "None"]
    rows = [{"image": f"images/{i}.png", "prompt": text} for i, text in enumerate(texts)]
    file = tmp_path / f"t.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif ending == "csv":
        file.write_text("image,prompt\n" + "".join(f"{r['image']},{r['prompt'] or ''}\n" for r in rows))
    else:
        file.write_text("\n".join(map(json.dumps, rows)))
    wanted = ["a cat", None, None, None, None]
    assert [item.prompt for item in read(file)] == wanted
    assert [item.prompt for item in read(tmp_path / "images", str(file))] == wanted


def test_prompts_by_two_rules_at_once():
    with pytest.raises(ValueError, match="expected one of them"):
        parse_prompts("a cat", names=True)


def test_items_are_drawn_no_further_than_asked():
    def endless(shard):
        number = 0
        while True:
            yield Item(shard, number, str(number), None, None)
            number += 1

    stream = Source("x", ["a"], endless).items(1, 2)
    assert [next(stream).row for _ in range(2)] == [1, 3]


def test_a_table_may_name_images_from_the_folder_above(tmp_path):
    folder(tmp_path / "images", {"a.png": (plain(1), None)})
    (tmp_path / "p.jsonl").write_text('{"file": "images/a.png", "prompt": "x"}\n')
    (item,) = read(tmp_path / "images", str(tmp_path / "p.jsonl"))
    assert isinstance(item.image, Path) and item.image.is_file()


def test_a_pattern_of_images_is_read_with_their_captions(tmp_path):
    folder(tmp_path, {"a1.png": (plain(1), "one"), "a2.PNG": (plain(2), "two"), "b.png": (plain(3), None)})
    folder(tmp_path, {"sub/a3.png": (plain(4), None)})
    (tmp_path / "._a.png").write_bytes(b"AppleDouble")
    (tmp_path / "a.npz").write_bytes(b"latents")
    assert pairs(read(tmp_path / "a*")) == [("a1.png", "one"), ("a2.PNG", "two")]
    assert pairs(read(tmp_path / "?.png")) == [("b.png", None)]
    with pytest.raises(ValueError, match=r"c\*\.png, which fits no image"):
        read(tmp_path / "c*.png")


def test_archives_of_other_kinds_are_to_be_unpacked(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"a\.zip; expected an image, .*; unpack it"):
        read(tmp_path / "a.zip")


def test_clutter_endings_and_forms_of_names_in_a_shard(tmp_path):
    composed, apart = "\u00e9", "e\u0301"
    image = png(plain(1))
    members = {
        f"{apart}.PNG": image,
        f"{composed}.TXT": b"p",
        **{f"{name}.png": image for name in ("._x", ".ipynb_checkpoints/y", "__MACOSX/z", "a/@eaDir/q")},
        "k.jpg": image,
        "k.caption": b"kohya's",
    }
    items = read(tar(tmp_path / "s.tar", members))
    assert pairs(items) == [(f"s.tar/{composed}.PNG", "p"), ("s.tar/k.jpg", "kohya's")]


def test_two_images_of_one_stem_are_both_scored_by_their_common_caption(tmp_path):
    folder(tmp_path, {"0.png": (plain(1), "p"), "0.jpg": (plain(2), None)})
    assert pairs(read(tmp_path)) == [("0.jpg", "p"), ("0.png", "p")]


def test_a_table_of_prompts_in_a_folder_by_another_spelling(tmp_path):
    folder(tmp_path, {"sub/a.PNG": (plain(1), None), "caf\u00e9.png": (plain(1), None)})
    rows = [("sub\\a.png", "A"), ("cafe\u0301.PNG", "C")]
    text = "".join(json.dumps({"file_name": file, "text": prompt}) + "\n" for file, prompt in rows)
    (tmp_path / "Metadata.JSONL").write_text(text)
    items = read(tmp_path)
    assert [item.prompt for item in items] == ["A", "C"]
    assert all(isinstance(item.image, Path) and item.image.is_file() for item in items)


def test_an_address_survives_the_columns_of_ray():
    item = Item(0, 1, "https://host/a.png", "p", Remote("https://host/a.png"), "mark")
    columns = ray_data._Read(lambda: Source("s", [], lambda shard: iter(())), set(), False)._columns(
        item, "row"
    )
    assert ray_data._items({name: [value] for name, value in columns.items()}) == [item]
