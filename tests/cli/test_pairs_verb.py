"""t2ialign pairs: folders, models, rankings and scores become pairs or likes with their provenance."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from rewards import Reward
from t2ialign.api import make_pairs
from t2ialign.cli import main as cli
from t2ialign.data.judged import read_judged
from t2ialign.data.pairs import read_pairs
from t2ialign.data.rated import read_rated
from t2ialign.io import jsonl
from tests.cli.test_cli import fails

BRIGHT = "tests.training.brightness"
GREYS = {"a cat": (10, 200, 90), "a dog": (50, 60, 250)}


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Three images of each of two prompts, as t2ialign sample leaves them."""
    folder, rows = tmp_path / "samples", []
    folder.mkdir()
    for prompt, greys in GREYS.items():
        for grey in greys:
            file = f"{prompt[2:]}-{grey}.png"
            Image.new("RGB", (8, 8), (grey, grey, grey)).save(folder / file)
            rows.append({"file": file, "prompt": prompt, "seed": grey})
    jsonl.rewrite(folder / "manifest.jsonl", rows)
    return folder


def names(pairs) -> list[tuple[str, str, str]]:
    return [(pair.prompt, Path(pair.win).name, Path(pair.lose).name) for pair in pairs]


def test_the_best_and_the_worst_of_a_folder(samples, tmp_path, capsys):
    out = tmp_path / "pairs.jsonl"
    assert cli.main(["pairs", str(samples), "--rewards", BRIGHT, "-o", str(out)]) == 0
    pairs = list(read_pairs(str(out)))
    assert names(pairs) == [("a cat", "cat-200.png", "cat-10.png"), ("a dog", "dog-250.png", "dog-50.png")]
    assert pairs[0].margin == pytest.approx(190 / 255, abs=1e-3)
    row = jsonl.read(out)[0]
    assert row["agreement"] == 1 and row[f"gap_{BRIGHT}"] == pytest.approx(row["margin"])
    report = json.loads((tmp_path / "pairs.json").read_text())
    assert report["written"] == 2 and report["compared"] == 6 and report["label_noise"] is None
    page = (tmp_path / "pairs.html").read_text()
    assert "a cat" in page and "data:image/png" in page and "Left out" not in page
    assert f"t2ialign train dpo data={out}" in capsys.readouterr().out


def test_every_two_images_margins_and_ties(samples, tmp_path):
    made = make_pairs(samples, tmp_path / "all.parquet", rewards=BRIGHT, every=True, min_margin=0.35)
    assert made.count == 4 and made.figures["dropped"] == {"margin": 2}
    some = make_pairs(samples, tmp_path / "ties.jsonl", rewards=BRIGHT, every=True, ties=0.32)
    assert some.count == 6 and some.figures["ties"] == 2
    assert sum(pair.preference == 0.5 for pair in read_pairs(str(some.output), ties="soft")) == 2


class Darkness(Reward):
    needs_text = False

    def __init__(self):
        super().__init__()
        self.calls = 0

    def score(self, images, prompts):
        self.calls += len(images)
        return -images.mean((1, 2, 3))


def test_rewards_that_disagree_and_a_judge(samples, tmp_path):
    from tests.training.brightness import build

    tools = {"bright": build(), "dark": Darkness(), "bright again": build()}
    with pytest.raises(
        ValueError, match=r"got no pair out of 6 images of 2 prompts \(2 by agreement\).*lower"
    ):
        make_pairs(samples, tmp_path / "no.jsonl", rewards=tools, min_agreement=0.9)
    made = make_pairs(samples, tmp_path / "voted.jsonl", rewards=tools, min_agreement=0.6)
    assert jsonl.read(made.output)[0]["agreement"] == pytest.approx(2 / 3)
    assert made.figures["agreement"]["bright, dark"] == 0
    assert made.figures["agreement"]["bright, bright again"] == 1
    judged = make_pairs(samples, tmp_path / "judged.jsonl", rewards=tools, judge="dark")
    first = jsonl.read(judged.output)[0]
    assert first["jpg_0"].endswith("cat-10.png") and first["agreement"] == 0
    assert judged.figures["tools"] == ["bright", "bright again"] and judged.figures["judge"] == "dark"


def test_scores_are_kept_for_another_rule(samples, tmp_path):
    dark = Darkness()
    make_pairs(samples, tmp_path / "p.jsonl", rewards={"dark": dark})
    assert dark.calls == 6
    with pytest.raises(
        ValueError, match="from an earlier run; expected none; keep its scores with resume=True"
    ):
        make_pairs(samples, tmp_path / "p.jsonl", rewards={"dark": dark}, every=True)
    made = make_pairs(samples, tmp_path / "p.jsonl", rewards={"dark": dark}, every=True, resume=True)
    assert made.count == 6 and dark.calls == 6


def test_likes(samples, tmp_path):
    made = make_pairs(samples, tmp_path / "likes.jsonl", rewards=BRIGHT, likes=True)
    assert made.figures["liked"] == 2 and made.figures["disliked"] == 4
    said = {Path(one.image).name: one.liked for one in read_rated(str(made.output))}
    assert said["cat-200.png"] and not said["cat-90.png"] and said["dog-250.png"]
    whole = make_pairs(samples, tmp_path / "whole.parquet", rewards=BRIGHT, likes=True, quantiles=(1.0, 0.0))
    assert [one.liked for one in read_rated(str(whole.output))].count(False) == 2


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_scores_of_a_table(samples, tmp_path, ending):
    rows = [("a cat", "cat-10.png", 1, 5), ("a cat", "cat-200.png", 3, 4), ("a cat", "cat-90.png", "", 3)]
    keys = ("prompt", "file", "votes", "stars")
    if ending == "csv":
        lines = [",".join(keys), *(",".join(map(str, row)) for row in rows)]
    else:
        lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in rows]
    table = samples / f"scores.{ending}"
    table.write_text("\n".join(lines))
    made = make_pairs(table, tmp_path / "p.jsonl", columns=["votes"])
    assert names(read_pairs(str(made.output))) == [("a cat", "cat-200.png", "cat-10.png")]
    judged = make_pairs(table, tmp_path / "q.jsonl", columns=["votes", "stars"], judge="stars")
    assert names(read_pairs(str(judged.output))) == [("a cat", "cat-10.png", "cat-200.png")]


RANKED = [
    {"prompt": "a cat", "generations": ["cat-10.png", "cat-200.png", "cat-90.png"], "ranking": [2, 1, 2]},
    {"prompt": "a cat", "image_path": ["cat-10.png", "cat-200.png", "cat-90.png"], "rank": [2, 1, 2]},
]


@pytest.mark.parametrize("row", RANKED)
def test_rankings(samples, tmp_path, row):
    file = samples / "test.json"
    file.write_text(json.dumps([row]))
    made = make_pairs(file, tmp_path / "p.jsonl", every=True)
    assert names(read_pairs(str(made.output))) == [
        ("a cat", "cat-200.png", "cat-10.png"),
        ("a cat", "cat-200.png", "cat-90.png"),
    ]
    assert made.figures["dropped"] == {"tie": 1}


def test_a_ranking_of_hpdv2s_training_set(samples, tmp_path):
    (samples / "train").mkdir()
    for name in ("cat-10.png", "cat-200.png"):
        (samples / name).rename(samples / "train" / name)
    row = {"prompt": "a cat", "file_path": ["cat-10.png", "cat-200.png"], "human_preference": [0, 1]}
    file = samples / "train.json"
    file.write_text(json.dumps([row, row]))
    made = make_pairs(file, tmp_path / "p.jsonl")
    assert names(read_pairs(str(made.output))) == [("a cat", "cat-200.png", "cat-10.png")] * 2


DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))


@pytest.mark.skipif(not DATA.is_dir(), reason="the published rankings are not there")
def test_image_rewards_test_set_has_as_many_pairs_as_its_paper_counts(tmp_path):
    made = make_pairs(DATA / "imagereward" / "data" / "test.json", tmp_path / "p.jsonl", every=True)
    assert made.count == 6399 and made.figures["dropped"] == {"tie": 831}


def test_a_model_draws_the_images(tmp_path, capsys):
    (tmp_path / "p.txt").write_text("a red circle\n")
    words = ["--model", "toy", "--prompts", str(tmp_path / "p.txt"), "-n", "2", "--num-inference-steps", "2"]
    out = tmp_path / "p.jsonl"
    assert cli.main(["pairs", *words, "--rewards", BRIGHT, "-o", str(out)]) == 0
    assert len(list((tmp_path / "p_images").glob("*.png"))) >= 2
    (pair,) = read_pairs(str(out))
    assert pair.prompt == "a red circle" and Path(pair.win).parent == tmp_path / "p_images"
    assert cli.main(["pairs", *words, "--rewards", BRIGHT, "-o", str(out), "--resume", "latest"]) == 0


def test_equal_scores_everywhere_are_one_line(samples, tmp_path, capsys):
    for file in samples.glob("*.png"):
        Image.new("RGB", (8, 8)).save(file)
    line = fails(capsys, "pairs", str(samples), "--rewards", BRIGHT, "-o", str(tmp_path / "p.jsonl"))
    assert "(2 by tie); expected at least one; the scores tie everywhere: name another reward" in line
    words = ("--likes", "-o", str(tmp_path / "q.jsonl"))
    line = fails(capsys, "pairs", str(samples), "--rewards", BRIGHT, *words)
    assert "got 0 liked and 0 disliked images; expected some of both" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected a ranking, such as generations and ranking"),
        (["--rewards", BRIGHT, "--judge", "else"], "got --judge else; expected one of tests.training.bright"),
        (["--rewards", BRIGHT, "--columns", "seed"], "got --rewards and --columns"),
        (["--columns", "votes"], "there is no votes: rename the columns"),
        (
            ["--rewards", BRIGHT, "--likes", "--quantiles", ".2", ".8"],
            "got --quantiles 0.2 0.8; expected two",
        ),
        (["--rewards", BRIGHT, "--min-margin", "-1"], "got --min-margin -1.0; expected a number from 0"),
        (["--rewards", BRIGHT, "--min-agreement", "2"], "got --min-agreement 2.0; expected a share"),
        (["--rewards", BRIGHT, "--prompts", "p.txt"], "expected images, or what draws them; drop one"),
    ],
)
def test_settings_that_cannot_be(samples, tmp_path, capsys, words, message):
    source = samples / "manifest.jsonl"
    assert message in fails(capsys, "pairs", str(source), *words, "-o", str(tmp_path / "p.jsonl"))


def test_nothing_to_compare(samples, tmp_path, capsys):
    rows = jsonl.read(samples / "manifest.jsonl")
    jsonl.rewrite(samples / "manifest.jsonl", [rows[0], rows[3]])
    line = fails(capsys, "pairs", str(samples), "--rewards", BRIGHT, "-o", str(tmp_path / "p.jsonl"))
    assert "got 2 images of 2 prompts, one of each; expected several images of a prompt" in line
    line = fails(capsys, "pairs", "-o", str(tmp_path / "q.jsonl"), "--rewards", BRIGHT)
    assert "got neither images nor --prompts" in line


def test_a_ranking_that_is_broken_names_the_row(samples, tmp_path):
    file = samples / "r.json"
    file.write_text(json.dumps([{"prompt": "a cat", "generations": ["cat-10.png"], "ranking": [1, 2]}]))
    with pytest.raises(ValueError, match="that are no lists of one length"):
        list(read_judged(str(file), [])[1])
    file.write_text(json.dumps([{"prompt": "a cat", "generations": ["cat-10.png"], "ranking": ["first"]}]))
    with pytest.raises(ValueError, match="got 'first'; expected a number"):
        list(read_judged(str(file), [])[1])
