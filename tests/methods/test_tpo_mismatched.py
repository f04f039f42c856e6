"""Prompts that do not fit an image: where they come from, what is left out, what a scorer says of them."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from rewards import Reward
from t2ialign.data.rated import RatedRecord
from t2ialign.io import jsonl
from t2ialign.methods.tpo.contrasted import Checker, contrasted
from t2ialign.methods.tpo.mismatched import Mismatched, by_file, by_model, by_rules, edits

CAPTION = "a red circle left of a blue square"


def kept(source, tmp_path: Path, **changes) -> Mismatched:
    settings = {"of": {"by": "rules"}, "limit": 4, "max_edits": None, "tokens": str.lower}
    return Mismatched(source, tmp_path / "others.jsonl", **{**settings, **changes})


def test_each_principle_changes_what_it_names():
    assert by_rules(["spatial"])(CAPTION)[0] == "a red circle right of a blue square"
    assert all("left of" in other for other in by_rules(["attribute"])(CAPTION))
    counts = by_rules(["content"])("two small green circles")
    assert "three small green circles" in counts and "two large green circles" not in counts
    assert "a cartoon drawing of a dog" in by_rules(["context"])("a photo of a dog")


def test_edits_are_words_that_differ():
    assert edits("a red circle", "A red circle") == 0
    assert edits("a red circle", "a blue circle") == 1
    assert edits("a red circle left of a blue square", "a blue circle left of a red square") == 2
    assert edits("a cat", "a cat on a mat") == 3


def test_a_budget_and_what_the_model_reads_leave_prompts_out(tmp_path):
    source = kept(by_rules(["attribute"]), tmp_path, max_edits=1)
    assert all(edits(CAPTION, other) == 1 for other in source(CAPTION)) and source(CAPTION)
    window = kept(by_rules(["attribute"]), tmp_path / "cut", tokens=lambda text: tuple(text.split()[:5]))
    assert "a red circle left of a green square" not in window(CAPTION)  # cut off: the same to the model


def test_no_caption_is_asked_twice_and_a_journal_of_other_settings_is_not_read(tmp_path):
    calls = []

    def source(prompt):
        calls.append(prompt)
        return [f"{prompt} and a dog", f"{prompt} and a cow"]

    assert kept(source, tmp_path, limit=1)("a cat") == ["a cat and a dog"]
    assert kept(source, tmp_path, limit=1)("a cat") == ["a cat and a dog"] and calls == ["a cat"]
    _, row = jsonl.read(tmp_path / "others.jsonl")
    assert row == {"prompt": "a cat", "others": ["a cat and a dog"], "edits": [3]}
    assert len(kept(source, tmp_path, of={"by": "else"})("a cat")) == 2 and len(calls) == 2


def test_a_language_model_is_told_what_to_change_and_what_it_leaves_true_is_dropped():
    asked = []

    def complete(request):
        asked.append(request)
        return f"1. a red circle right of a blue square\n2. {CAPTION}\n3. a red circle"

    source = by_model(complete, ["spatial", "attribute"], count=3, max_edits=2)
    assert source(CAPTION) == ["a red circle right of a blue square"]
    for words in (CAPTION, "Write 3 other captions", "an arrangement", "a colour", "at most 2 words"):
        assert words in asked[0]


def test_a_file_of_mismatched_prompts(tmp_path):
    (tmp_path / "sets.json").write_text(json.dumps({"a black dog": ["a dog", "a black cat"]}))
    source = by_file(tmp_path / "sets.json")
    assert source("a black dog") == ["a black cat"]  # the first is true of the image too
    assert source("a cow") == []


class Red(Reward):
    """Likes prompts that say whether the image is red."""

    def __init__(self):
        super().__init__()
        self.images = 0

    def score(self, images, prompts):
        self.images += len(images)
        red = images[:, 0].mean((1, 2)) > 0.5
        return torch.tensor([float(("red" in p) == bool(r)) for p, r in zip(prompts, red, strict=True)])


@pytest.fixture
def records(tmp_path):
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "red.png")
    return [
        RatedRecord("a red circle", tmp_path / "red.png"),
        RatedRecord("a red circle", tmp_path / "red.png", liked=False),
        RatedRecord("a dot", tmp_path / "red.png", name="row 3"),
    ]


OTHERS = {"a red circle": ["a blue circle", "a red square"], "a dot": []}


def test_a_scorer_leaves_out_what_is_true_of_the_image(records, tmp_path, caplog):
    reward = Red()
    checker = Checker(reward, 0.0, tmp_path / "checks.jsonl")
    (only,) = contrasted(records, OTHERS.__getitem__, checker, count=3, origin="here")
    assert only.others == ("a blue circle",) * 3 and only.prompt == "a red circle"
    assert "1 mismatched prompts are left out, as true of their images" in caplog.text
    assert "1 of 2 images have no mismatched prompt and are left out, such as 'a dot'" in caplog.text
    scored = reward.images
    again = Checker(reward, 0.0, tmp_path / "checks.jsonl")
    assert len(list(contrasted(records, OTHERS.__getitem__, again, count=3, origin="here"))) == 1
    assert reward.images == scored  # the journal knows
    strict = Checker(reward, 1.0, tmp_path / "checks.jsonl")
    with pytest.raises(ValueError, match="got no mismatched prompt for any of 2 images in here"):
        list(contrasted(records, OTHERS.__getitem__, strict, count=1, origin="here"))


def test_an_image_that_cannot_be_read_is_left_to_the_cache(records, tmp_path):
    broken = [RatedRecord("a red circle", tmp_path / "no.png")]
    checker = Checker(Red(), 0.0, tmp_path / "checks.jsonl")
    (only,) = contrasted(broken, OTHERS.__getitem__, checker, count=2, origin="here")
    assert only.others == ("a blue circle", "a red square")
