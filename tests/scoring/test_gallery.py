"""The gallery: the right images, read again from where they lie, in a page that no text breaks out of."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from t2ialign.scoring import gallery, output
from t2ialign.scoring.prompts import Prompts
from t2ialign.scoring.rows import Columns
from t2ialign.scoring.sources import open_source
from t2ialign.scoring.thumbnails import thumbnails
from tests.scoring.images import plain, png, reds, tar

NASTY = '</script><img src=x onerror="alert(1)">'


def scores(count: int, **other):
    """Reward "up" grows with the row, "down" falls, and row 1 failed."""
    return output.table(
        [
            {
                **{"shard": 0, "row": i, "file": f"{i:03d}.png", "prompt": f"red {i}"},
                "scores": {} if i == 1 else {"up": float(i), "down": float(-i)},
                "error": "it broke" if i == 1 else None,
                **other,
            }
            for i in range(count)
        ],
        ["up", "down"],
    )


def test_the_best_and_worst_of_each_reward_are_chosen():
    chosen = gallery.choose(scores(10), 2)
    assert list(chosen) == [(0, 9), (0, 8), (0, 2), (0, 0)], "best of the first reward first; no error"
    assert all(names == ["up", "down"] for _, names in chosen.values())
    few = gallery.choose(scores(4), 24)
    assert sorted(few) == [(0, 0), (0, 2), (0, 3)] and len(few[0, 2][1]) == 2, "nobody twice for one reward"
    assert [len(names) for _, names in gallery.choose(scores(6), 3).values()] == [2] * 5


class Page(HTMLParser):
    """The tags of a page and the text between."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_shows_them_with_their_images(tmp_path):
    root = reds(tmp_path / "i", 10)
    source = open_source(str(root), Prompts(), Columns())
    gallery.write(scores(10), source, tmp_path / "out" / "g.html", top=2)
    text = (tmp_path / "out" / "g.html").read_text()
    page = Page(text)
    cards = page.all("figure")
    assert [json.loads(card["data-values"]) for card in cards] == [[i, -i] for i in (9.0, 8.0, 2.0, 0.0)]
    assert [json.loads(card["data-of"]) for card in cards] == [[0, 1]] * 4
    for place, image in zip((9, 8, 2, 0), page.all("img"), strict=True):
        content = base64.b64decode(image["src"].partition(",")[2])
        assert Image.open(io.BytesIO(content)).convert("RGB").getpixel((3, 3)) == (place, 0, 0)
    assert "it broke" in text and "10 rows, 1 with an error" in text
    assert not re.search(r"(src|href)=.(?!data:)", text) and "http" not in text, "nothing is fetched"
    assert [option["value"] for option in page.all("option")] == ["0", "1", "-1", "1"]


def test_large_images_are_shrunk(tmp_path):
    (tmp_path / "i").mkdir()
    Image.effect_noise((900, 600), 80).convert("RGB").save(tmp_path / "i" / "000.png")
    source = open_source(str(tmp_path / "i"), Prompts(), Columns())
    gallery.write(scores(1), source, tmp_path / "g.html", top=1)
    assert (tmp_path / "g.html").stat().st_size < 150_000, "it can be enlarged to 512 pixels"


def test_nothing_in_the_data_is_taken_for_markup(tmp_path):
    root = reds(tmp_path / "i", 3)
    table = scores(3, prompt=NASTY, file=NASTY, error=NASTY)
    source = open_source(str(root), Prompts(), Columns())
    gallery.write(table, source, tmp_path / "g.html", top=2)
    page = Page((tmp_path / "g.html").read_text())
    assert len(page.all("script")) == 1
    assert not any("onerror" in attributes for _, attributes in page.tags)


@pytest.mark.parametrize("wanted", [{0}, {0, 2}])
def test_only_the_shards_of_chosen_images_are_read(tmp_path, wanted):
    for shard in range(3):
        tar(tmp_path / f"{shard}.tar", {f"{i}.png": png(plain(10 * shard + i)) for i in range(4)})
    source = open_source(str(tmp_path), Prompts(), Columns())
    opened = []

    def watched(shard):
        opened.append(shard)
        return source.read(shard)

    places = {(shard, 1): f"{shard}.tar/1.png" for shard in wanted}
    found = dict(thumbnails(type(source)("x", source.shards, watched), places))
    assert set(opened) == wanted and set(found) == set(places) and all(found.values())


def test_no_image_is_shown_under_the_name_of_another(tmp_path):
    """One was added since: every row behind it has moved."""
    source = open_source(str(reds(tmp_path / "i", 3)), Prompts(), Columns())
    plain(200).save(tmp_path / "i" / "000a.png")
    source = open_source(source.name, Prompts(), Columns())
    gallery.write(scores(3), source, tmp_path / "g.html", top=2)
    text = (tmp_path / "g.html").read_text()
    assert text.count("no image") == 1 and len(Page(text).all("img")) == 1, "000.png is where it was"


def test_errors_beyond_the_listed_ones_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "ERRORS", 1)
    rows = [
        {"shard": 0, "row": i, "file": f"{i}", "prompt": None, "scores": {}, "error": f"broken-{i}"}
        for i in range(4)
    ]
    text = gallery.render("x", output.table(rows, ["up"]), [])
    assert "broken-0" in text and "broken-1" not in text and "has 3 more" in text
    assert "nan" not in text, "no number is a dash"


def test_an_image_that_is_gone_leaves_a_card_without_one(tmp_path):
    root = reds(tmp_path / "i", 3)
    (root / "002.png").write_bytes(b"")
    source = open_source(str(root), Prompts(), Columns())
    gallery.write(scores(3), source, tmp_path / "g.html", top=2)
    text = (tmp_path / "g.html").read_text()
    assert text.count("no image") == 1 and len(Page(text).all("figure")) == 2


def outside(tmp_path):
    """A folder with an image of its own, a link to one outside, and captions that name two more there."""
    root = reds(tmp_path / "i", 1)
    secret = tmp_path / "secret.png"
    plain(100).save(secret)
    (root / "link.png").symlink_to(secret)
    (root / "inner.png").symlink_to(root / "000.png")
    return root, secret


def test_a_page_shows_no_image_from_outside_a_folder(tmp_path, caplog):
    """A folder may come from others, and the page may be passed on."""
    root, secret = outside(tmp_path)
    names = ["000.png", "link.png", "inner.png", "../secret.png", str(secret)]
    (root / "captions.jsonl").write_text(
        "".join(json.dumps({"file_name": n, "text": "x"}) + "\n" for n in names)
    )
    source = open_source(str(root), Prompts(), Columns())
    rows = {(item.shard, item.row): item.file for item in source.read(0)}
    assert sorted(rows.values()) == sorted(names), "all are scored"
    shown = {rows[place] for place, _ in thumbnails(source, rows)}
    assert shown == {"000.png", "inner.png"}
    assert "3 images lie outside the folder and are not shown on the page" in caplog.text


def test_a_manifest_of_a_folder_shows_no_image_from_outside_but_a_table_of_the_users_does(tmp_path):
    root, secret = outside(tmp_path)
    names = ["000.png", "link.png", "../secret.png", str(secret)]
    file = root / "manifest.jsonl"
    file.write_text("".join(json.dumps({"file": name, "prompt": "x"}) + "\n" for name in names))
    for place, count in ((root, 1), (file, 4)):
        source = open_source(str(place), Prompts(), Columns())
        rows = {(item.shard, item.row): item.file for item in source.read(0)}
        assert len(rows) == 4 and len(dict(thumbnails(source, rows))) == count
