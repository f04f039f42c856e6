import io
import json
import math
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from t2ialign.data.images import open_rgb
from t2ialign.data.pairs import read_pairs
from t2ialign.data.skipped import Fault, Skipped
from t2ialign.data.sources import identity


@pytest.fixture(autouse=True)
def own_library_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "library")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def make_image(level: int) -> bytes:
    """A grey PNG that says which one it is."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


def level(source) -> int:
    return int(np.asarray(open_rgb(source))[0, 0, 0])


def summary(source, **options) -> list[tuple]:
    """(prompt, winner's level, loser's level, weight) of every record."""
    return [(r.prompt, level(r.win), level(r.lose), r.weight) for r in read_pairs(str(source), **options)]


def write_parquet(path: Path, **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def pick_a_pic(path: Path, labels: list[tuple], **extra) -> Path:
    """Row i compares level 2i with level 2i + 1."""
    rows = range(len(labels))
    return write_parquet(
        path,
        are_different=[True for _ in rows],
        jpg_0=[make_image(2 * i) for i in rows],
        jpg_1=[make_image(2 * i + 1) for i in rows],
        label_0=[float(a) for a, _ in labels],
        label_1=[float(b) for _, b in labels],
        caption=[f"prompt {i}" for i in rows],
        **extra,
    )


CHOSEN, REJECTED = [10, 20, 30], [11, 21, 31]
RANKED = [(f"prompt {i}", w, n, 1.0) for i, (w, n) in enumerate(zip(CHOSEN, REJECTED, strict=True))]
PROMPTS = [row[0] for row in RANKED]


def structs(levels: list[int]) -> list[dict]:
    return [{"bytes": make_image(v), "path": f"{v}.png"} for v in levels]


class TestPickAPic:
    def test_the_label_decides_and_ties_are_dropped(self, tmp_path):
        file = pick_a_pic(tmp_path / "p.parquet", [(1, 0), (0, 1), (0.5, 0.5), (1, 0)])
        assert summary(file) == [("prompt 0", 0, 1, 1.0), ("prompt 1", 3, 2, 1.0), ("prompt 3", 6, 7, 1.0)]

    def test_half_gives_a_tie_in_both_orders(self, tmp_path):
        file = pick_a_pic(tmp_path / "p.parquet", [(0.5, 0.5), (0, 1)])
        both = [("prompt 0", 0, 1, 0.5), ("prompt 0", 1, 0, 0.5)]
        assert summary(file, ties="half") == [*both, ("prompt 1", 3, 2, 1.0)]

    @pytest.mark.parametrize("ties", ["drop", "half"])
    def test_no_tie_ever_counts_as_a_win(self, tmp_path, ties):
        rng = np.random.default_rng(0)
        labels = [[(1, 0), (0, 1), (0.5, 0.5)][i] for i in rng.integers(0, 3, 60)]
        file = pick_a_pic(tmp_path / "p.parquet", labels)
        net: dict[str, float] = {}  # winner's weight minus loser's, of the first image
        for prompt, win, _, weight in summary(file, ties=ties):
            net[prompt] = net.get(prompt, 0.0) + (weight if win % 2 == 0 else -weight)
        assert [net.get(f"prompt {i}", 0.0) for i in range(60)] == [a - b for a, b in labels]

    def test_unlabelled_rows_are_left_out_even_from_ties(self, tmp_path):
        file = pick_a_pic(tmp_path / "p.parquet", [(0.5, 0.5), (1, 0)], has_label=[False, True])
        assert summary(file, ties="half") == [("prompt 1", 2, 3, 1.0)]

    def test_labels_of_a_csv_are_text_and_count_all_the_same(self, tmp_path):
        for name in ("a.png", "b.png"):
            Image.new("RGB", (8, 8)).save(tmp_path / name)
        file = tmp_path / "pairs.csv"
        file.write_text("caption,jpg_0,jpg_1,label_0,label_1\nx,a.png,b.png,0,1\n")
        (record,) = read_pairs(str(file))
        assert (record.win, record.lose) == (tmp_path / "b.png", tmp_path / "a.png")

    def test_has_label_of_a_csv_is_text_too(self, tmp_path):
        file = tmp_path / "pairs.csv"
        rows = [f"{word},a.png,b.png,1,0,{word}\n" for word in ("True", "False", "1", "0", "false", "")]
        file.write_text("caption,jpg_0,jpg_1,label_0,label_1,has_label\n" + "".join(rows))
        assert [record.prompt for record in read_pairs(str(file))] == ["True", "1"]
        file.write_text(file.read_text() + "x,a.png,b.png,1,0,maybe\n")
        with pytest.raises(ValueError, match="got has_label 'maybe'; expected true or false"):
            list(read_pairs(str(file)))

    @pytest.mark.parametrize("labels", [(math.nan, 0), (2, 0), (-1, 0)])
    def test_impossible_labels_name_the_row(self, tmp_path, labels):
        file = pick_a_pic(tmp_path / "p.parquet", [(1, 0), labels])
        with pytest.raises(ValueError, match=r"p\.parquet row 1: got labels"):
            summary(file)

    def test_all_ties_and_no_rows(self, tmp_path):
        ties = pick_a_pic(tmp_path / "ties.parquet", [(0.5, 0.5)] * 3)
        with pytest.raises(ValueError, match=r"3 rows in .*ties\.parquet, 3 of them ties.*ties=half"):
            summary(ties)
        assert len(summary(ties, ties="half")) == 6
        nothing = pick_a_pic(tmp_path / "none.parquet", [])
        with pytest.raises(ValueError, match=r"no rows in .*none\.parquet"):
            summary(nothing)

    def test_limit_counts_records_and_reads_no_further(self, tmp_path):
        file = pick_a_pic(tmp_path / "p.parquet", [(1, 0), (0.5, 0.5), (0, 1), (math.nan, 0)])
        assert [row[0] for row in summary(file, limit=2)] == ["prompt 0", "prompt 2"]

    def test_missing_column_lists_what_is_there_and_what_should(self, tmp_path):
        file = write_parquet(tmp_path / "p.parquet", caption=["a"], jpg_0=[b""], jpg_1=[b""], winner=[0])
        with pytest.raises(ValueError) as caught:
            summary(file)
        message = str(caught.value)
        assert "got columns caption, jpg_0, jpg_1, winner; expected prompt, chosen, rejected or" in message
        assert "jpg_0, jpg_1, label_0, label_1" in message and "\n" not in message


class TestRanked:
    @pytest.mark.parametrize("column", ["prompt", "caption", "text"])
    @pytest.mark.parametrize("wrap", [structs, lambda levels: [make_image(v) for v in levels]])
    def test_parquet_of_bytes_and_of_structs(self, tmp_path, column, wrap):
        columns = {column: PROMPTS, "chosen": wrap(CHOSEN), "rejected": wrap(REJECTED)}
        assert summary(write_parquet(tmp_path / "p.parquet", **columns)) == RANKED

    @pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
    def test_text_files_with_paths_relative_to_the_file(self, tmp_path, suffix, monkeypatch):
        (tmp_path / "set" / "images").mkdir(parents=True)
        for v in (*CHOSEN, *REJECTED):
            (tmp_path / "set" / "images" / f"{v}.png").write_bytes(make_image(v))
        rows = [
            {"prompt": p, "chosen": f"images/{w}.png", "rejected": f"images/{n}.png"} for p, w, n, _ in RANKED
        ]
        rows[1]["chosen"] = str(tmp_path / "set" / rows[1]["chosen"])
        text = {
            "jsonl": "\n".join(map(json.dumps, rows)),
            "json": json.dumps(rows),
            "csv": "\n".join(["prompt,chosen,rejected", *(",".join(row.values()) for row in rows)]),
        }[suffix]
        file = tmp_path / "set" / f"pairs.{suffix}"
        file.write_text(text)
        monkeypatch.chdir(tmp_path)
        assert summary(file) == summary(f"set/pairs.{suffix}") == RANKED

    def test_a_record_knows_where_it_stands(self, tmp_path):
        file = tmp_path / "pairs.jsonl"
        file.write_text('{"prompt": "a", "chosen": "a.png", "rejected": "b.png"}\n')
        (record,) = read_pairs(str(file))
        with pytest.raises(ValueError, match=r"pairs.jsonl line 1 winner: .*a\.png: got no such file"):
            open_rgb(record.win, name=f"{record.name} winner")

    @pytest.mark.parametrize(
        ("row", "words"),
        [
            (
                {"prompt": "a", "chosen": "a.png"},
                "line 1: got columns prompt, chosen; expected prompt, chosen",
            ),
            (
                {"prompt": None, "chosen": "a.png", "rejected": "b"},
                "line 1: got prompt None, which is empty; expected text",
            ),
            ({"prompt": "a", "chosen": None, "rejected": "b"}, "line 1 chosen: got None"),
            ({"prompt": "a", "chosen": "a", "rejected": ""}, "line 1 rejected: got ''"),
        ],
    )
    def test_bad_rows_are_named(self, tmp_path, row, words):
        file = tmp_path / "pairs.jsonl"
        file.write_text(json.dumps(row))
        with pytest.raises(ValueError) as caught:
            summary(file)
        assert words in str(caught.value) and "\n" not in str(caught.value)


def pair_folder(root: Path, names: list[str] | None = None) -> Path:
    for side, levels in (("chosen", CHOSEN), ("rejected", REJECTED)):
        for name, v in zip(names or ["a", "b", "sub/c.v2"], levels, strict=True):
            path = root / side / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make_image(v))
    return root


NAMES = ["a.png", "b.png", "sub/c.v2.png"]


class TestFolder:
    @pytest.mark.parametrize("file", ["captions.jsonl", "metadata.jsonl"])
    @pytest.mark.parametrize("column", ["text", "prompt", "caption"])
    @pytest.mark.parametrize("prefix", ["", "chosen/", "rejected/", "./"])
    def test_json_lines(self, tmp_path, file, column, prefix):
        rows = [{"file_name": prefix + n, column: p} for n, p in zip(NAMES, PROMPTS, strict=True)]
        (pair_folder(tmp_path) / file).write_text("\n".join(map(json.dumps, rows)))
        assert summary(tmp_path) == RANKED

    @pytest.mark.parametrize("place", ["", "chosen", "rejected"])
    def test_csv_in_any_of_the_folders(self, tmp_path, place):
        rows = [f"{n},{p}" for n, p in zip(NAMES, PROMPTS, strict=True)]
        (pair_folder(tmp_path) / place / "captions.csv").write_text("\n".join(["file_name,text", *rows]))
        assert summary(tmp_path) == RANKED

    @pytest.mark.parametrize("place", ["", "chosen", "rejected"])
    def test_text_file_beside_the_image(self, tmp_path, place):
        pair_folder(tmp_path)
        for name, prompt in zip(NAMES, PROMPTS, strict=True):
            path = tmp_path / place / name.replace(".png", ".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(prompt + "\n", encoding="utf-8-sig")
        assert summary(tmp_path) == RANKED

    def test_kinds_of_image_may_differ_within_a_pair(self, tmp_path):
        pair_folder(tmp_path)
        (tmp_path / "captions.jsonl").write_text(
            "\n".join(json.dumps({"file_name": n, "text": p}) for n, p in zip(NAMES, PROMPTS, strict=True))
        )
        Image.new("L", (9, 9), 11).save(tmp_path / "rejected" / "a.bmp")
        (tmp_path / "rejected" / "a.png").unlink()
        (tmp_path / "chosen" / ".DS_Store").write_bytes(b"junk")
        assert summary(tmp_path) == RANKED

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda root: (root / "rejected" / "b.png").unlink(), "1 images without a partner"),
            (lambda root: (root / "captions.jsonl").unlink(), "3 pairs without a caption"),
            (
                lambda root: (root / "chosen" / "a.jpg").write_bytes(make_image(1)),
                "expected one image of each name",
            ),
            (
                lambda root: (root / "captions.jsonl").write_text('{"name": 1}'),
                "got columns name; expected file_",
            ),
        ],
    )
    def test_what_does_not_fit_is_named(self, tmp_path, change, words):
        rows = [{"file_name": n, "text": p} for n, p in zip(NAMES, PROMPTS, strict=True)]
        (pair_folder(tmp_path) / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
        change(tmp_path)
        with pytest.raises(ValueError) as caught:
            summary(tmp_path)
        assert words in str(caught.value) and "\n" not in str(caught.value)

    def test_a_caption_that_is_nothing_is_no_prompt(self, tmp_path):
        rows = [{"file_name": n, "text": p} for n, p in zip(NAMES, ["a", "nan", None], strict=True)]
        (pair_folder(tmp_path) / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(ValueError, match="2 pairs without a caption"):
            summary(tmp_path)

    def test_empty_folders(self, tmp_path):
        for side in ("chosen", "rejected"):
            (tmp_path / side).mkdir()
        with pytest.raises(ValueError, match="got no images"):
            summary(tmp_path)


def as_dataset(*, images: bool) -> datasets.Dataset:
    columns = {"prompt": PROMPTS, "chosen": structs(CHOSEN), "rejected": structs(REJECTED)}
    kind = (
        datasets.Image() if images else {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    )
    return datasets.Dataset.from_dict(
        columns,
        features=datasets.Features({"prompt": datasets.Value("string"), "chosen": kind, "rejected": kind}),
    )


class TestLibrary:
    def test_parquet_folder_by_split(self, tmp_path):
        data = as_dataset(images=True)
        (tmp_path / "data").mkdir()
        data.select([0, 1]).to_parquet(tmp_path / "data" / "train-00000-of-00002.parquet")
        data.select([2]).to_parquet(tmp_path / "data" / "train-00001-of-00002.parquet")
        data.select([1]).to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
        assert summary(tmp_path) == RANKED
        assert summary(tmp_path, split="test") == RANKED[1:2]
        with pytest.raises(ValueError, match="got split 'validation'"):
            summary(tmp_path, split="validation")

    @pytest.mark.parametrize("streaming", [False, True])
    @pytest.mark.parametrize("images", [False, True])
    def test_by_name_through_load_dataset(self, tmp_path, monkeypatch, images, streaming):
        """The Hub's road, walked offline: `datasets` finds "owner/name" below the working folder, while our
        own reader is kept from seeing a folder there."""
        (tmp_path / "owner" / "name").mkdir(parents=True)
        as_dataset(images=images).to_parquet(tmp_path / "owner" / "name" / "train.parquet")
        monkeypatch.chdir(tmp_path)
        hide, is_dir = Path("owner/name"), Path.is_dir
        monkeypatch.setattr(Path, "is_dir", lambda self: self != hide and is_dir(self))
        assert summary("owner/name", streaming=streaming) == RANKED
        with pytest.raises(ValueError, match="split 'other', which does not open"):
            summary("owner/name", split="other", streaming=streaming)

    def test_a_stream_that_breaks_half_way_is_one_line(self, tmp_path, monkeypatch):
        class Dropped(Exception):
            """As the network's libraries have it: no relative of OSError."""

        def rows():
            yield from as_dataset(images=False)
            raise Dropped("payload is not\ncompleted")

        stream = datasets.IterableDataset.from_generator(rows)
        monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: stream)
        monkeypatch.chdir(tmp_path)
        records = read_pairs("owner/name", streaming=True)
        assert [next(records).prompt for _ in RANKED] == PROMPTS
        with pytest.raises(
            ValueError, match=r"'owner/name', which breaks at row 3 \(.*\); .*same command"
        ) as caught:
            next(records)
        assert "\n" not in str(caught.value)

    def test_save_to_disk(self, tmp_path):
        as_dataset(images=True).save_to_disk(tmp_path / "one")
        assert summary(tmp_path / "one") == RANKED
        datasets.DatasetDict({"train": as_dataset(images=True)}).save_to_disk(tmp_path / "many")
        assert summary(tmp_path / "many") == RANKED
        with pytest.raises(ValueError, match="expected one of train"):
            summary(tmp_path / "many", split="test")

    def test_image_folder_with_metadata(self, tmp_path):
        rows = []
        for prompt, win, lose, _ in RANKED:
            rows.append(
                {"prompt": prompt, "chosen_file_name": f"{win}.png", "rejected_file_name": f"{lose}.png"}
            )
            for v in (win, lose):
                (tmp_path / f"{v}.png").write_bytes(make_image(v))
        (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        assert summary(tmp_path) == RANKED

    def test_unknown_name_is_one_line(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match="got data set 'nobody/nothing'") as caught:
            summary("nobody/nothing")
        assert "\n" not in str(caught.value) and "check the name" in str(caught.value)

    @pytest.mark.parametrize("name", ["./gone", "gone.parquet", "/no/such/folder", "a/b/c"])
    def test_missing_path_never_asks_the_hub(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match="which does not exist"):
            summary(name)


def test_cut_parquet_and_foreign_file_are_named(tmp_path):
    whole = pick_a_pic(tmp_path / "whole.parquet", [(1, 0)] * 4).read_bytes()
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"cut\.parquet, which breaks") as caught:
        summary(cut)
    assert "\n" not in str(caught.value)
    other = tmp_path / "pairs.xlsx"
    other.write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"pairs\.xlsx; expected \.parquet"):
        summary(other)


@pytest.mark.parametrize("options", [{"ties": "keep"}, {"limit": 0}])
def test_wrong_options_are_refused_before_reading(options):
    with pytest.raises(ValueError, match="expected"):
        read_pairs("anything", **options)


def test_images_behind_an_address_are_fetched(tmp_path):
    for name, value in (("a.png", 7), ("b.png", 8)):
        (tmp_path / name).write_bytes(make_image(value))
    other = {"bytes": None, "path": str(tmp_path / "b.png")}
    row = {"prompt": "a", "chosen": (tmp_path / "a.png").as_uri(), "rejected": other}
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    assert summary(tmp_path / "p.jsonl") == [("a", 7, 8, 1.0)]
    (tmp_path / "p.jsonl").write_text(json.dumps({**row, "chosen": (tmp_path / "c.png").as_uri()}))
    with pytest.raises(ValueError, match=r"c\.png: got no such file"):
        summary(tmp_path / "p.jsonl")


def test_identity_follows_the_contents_not_the_place(tmp_path):
    root = pair_folder(tmp_path / "here" / "set")
    before = identity(str(root))
    (tmp_path / "there").mkdir()
    root.rename(tmp_path / "there" / "set")
    root = tmp_path / "there" / "set"
    assert identity(str(root)) == before
    (root / "chosen").rename(root / "other")  # swapping winners and losers keeps count and total size
    (root / "rejected").rename(root / "chosen")
    (root / "other").rename(root / "rejected")
    assert identity(str(root)) != before
    before = identity(str(root))
    for clutter in ("Thumbs.db", "chosen/desktop.ini", ".DS_Store"):
        (root / clutter).write_bytes(b"x")
    assert identity(str(root)) == before
    assert identity("owner/name") == {"name": "owner/name"}


def write_lines(file: Path, rows: list[dict]) -> str:
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


@pytest.fixture
def good(tmp_path):
    """A row of two images that are there."""
    for name, value in (("a.png", 1), ("b.png", 2)):
        (tmp_path / name).write_bytes(make_image(value))
    return {"prompt": "p", "chosen": "a.png", "rejected": "b.png"}


LABELS = {"caption": "p", "jpg_0": "a.png", "jpg_1": "b.png", "label_0": 1, "label_1": 0}
WRONG = {
    "without a prompt": [{"prompt": None}, {"prompt": " "}, {"prompt": "NaN"}, {"prompt": math.nan}],
    "with a prompt that is no text": [{"prompt": 3}, {"prompt": ["p"]}],
    "with an image that cannot be read": [
        {"chosen": None},
        {"rejected": ""},
        {"chosen": ["a.png"]},
        {"chosen": {"bytes": None, "path": None}},
        {"chosen": "iVBORw0KGgo" * 1000},
    ],
    "with the same image as both sides": [{"rejected": "a.png"}, {"rejected": "./a.png"}],
    "without a label": [{**LABELS, "label_0": None}, {**LABELS, "label_1": 2}, {**LABELS, "has_label": "?"}],
    "without a column that is needed": [{"prompt": "p", "chosen": "a.png"}, {"chosen": "a", "rejected": "b"}],
}


class TestRowsThatCannotBeUsed:
    @pytest.mark.parametrize("kind", WRONG)
    def test_the_first_stops_and_with_skipped_all_are_counted(self, tmp_path, good, kind):
        whole = kind in ("without a label", "without a column that is needed")
        wrong = [row if whole else good | row for row in WRONG[kind]]
        for row in wrong:
            with pytest.raises(Fault, match=r"pairs\.jsonl line 2\b.*: got ") as caught:
                summary(write_lines(tmp_path / "pairs.jsonl", [good, row]))
            assert caught.value.kind == kind and len(str(caught.value)) < 500
        source = write_lines(tmp_path / "pairs.jsonl", [good, *wrong, good | {"prompt": "last"}])
        skipped = Skipped(source)
        assert summary(source, skipped=skipped) == [("p", 1, 2, 1.0), ("last", 1, 2, 1.0)]
        assert skipped.summary().startswith(
            f"{len(wrong)} of {len(wrong) + 2} rows left out: {len(wrong)} {kind} (first: line 2"
        )

    def test_one_line_says_all_kinds_and_warns_of_more_than_half(self, tmp_path, good, caplog):
        source = write_lines(tmp_path / "p.jsonl", [good, good | {"prompt": ""}, good | {"chosen": None}])
        skipped = Skipped(source)
        assert len(summary(source, skipped=skipped)) == 1
        skipped.tell()
        (line,) = caplog.messages
        assert "2 of 3 rows left out: 1 without a prompt (first: line 2: got prompt ''" in line
        assert "; 1 with an image that cannot be read (first: line 3 chosen: got None" in line
        assert line.endswith("; that is more than half: check the data")
        caplog.clear()
        source = write_lines(tmp_path / "p.jsonl", [good, good | {"prompt": ""}])
        skipped = Skipped(source)
        summary(source, skipped=skipped)
        skipped.tell()
        assert "1 of 2 rows left out" in caplog.text and "half" not in caplog.text

    def test_nothing_left_is_an_error_that_says_why(self, tmp_path, good):
        source = write_lines(tmp_path / "p.jsonl", [good | {"prompt": ""}] * 2)
        with pytest.raises(ValueError, match=r"no pair in .*2 of 2 rows left out: 2 without a prompt"):
            summary(source, skipped=Skipped(source))

    def test_one_file_by_two_names_and_one_address_are_one_image(self, tmp_path, good):
        (tmp_path / "c.png").symlink_to("a.png")
        with pytest.raises(Fault, match=r"a\.png' as the chosen and the rejected image"):
            summary(write_lines(tmp_path / "p.jsonl", [good | {"rejected": "c.png"}]))
        twice = dict.fromkeys(("chosen", "rejected"), "https://host/a.png")
        with pytest.raises(Fault, match=r"a\.png' as the chosen and the rejected image"):
            list(read_pairs(str(write_lines(tmp_path / "p.jsonl", [good | twice]))))

    def test_an_image_may_tie_with_itself(self, tmp_path):
        image = [make_image(1)]
        columns = {"caption": ["p"], "jpg_0": image, "jpg_1": image, "label_0": [0.5], "label_1": [0.5]}
        file = write_parquet(tmp_path / "p.parquet", **columns)
        assert [record.preference for record in read_pairs(str(file), ties="soft")] == [0.5]


def test_names_of_columns_in_any_case_and_a_table_with_semicolons(tmp_path, good):
    file = tmp_path / "p.csv"
    file.write_text(" Prompt ;Chosen;REJECTED\na cat, a dog;a.png;b.png\n")
    assert summary(file) == [("a cat, a dog", 1, 2, 1.0)]
    file.write_text("words;Chosen;REJECTED\na;a.png;b.png\n")
    with pytest.raises(ValueError, match=r"p\.csv line 1: got columns words, Chosen, REJECTED; exp"):
        summary(file, skipped=Skipped(str(file)))
