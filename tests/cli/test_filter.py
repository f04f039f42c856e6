"""t2ialign filter: pairs in, the consistent ones out, every image scored once, whatever stops the run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import rewards
from t2ialign.cli import main as cli
from t2ialign.data.cache.comparisons import build_comparisons
from t2ialign.data.consistent_filter import Limits, consistent
from t2ialign.data.images import open_rgb
from t2ialign.data.pairs import PairRecord, read_pairs
from t2ialign.data.sources import identity
from tests.scoring.images import Counting, png

RED = "tests.scoring.images:Counting"
REAL = ("toy-clip", "toy-clip-b", RED)
TRIO = ("tests.training.brightness", "tests.training.redness", RED)
"""Without weights to load, where any three do."""
ALL = ("--floor", "-9", "-9", "-9", "--tie", "9", "9", "9")
PROMPTS = ("a red circle", "a blue square", "a red circle", "two green crosses")
LABELS = [(1, 0), (0, 1), (0.5, 0.5), (0.75, 0.25), (1, 0), (0.5, 0.5), (1, 0), (0, 1)]
"""Pair i compares image i with image i + 1 under one of the prompts."""


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setattr("t2ialign.scoring.pairs.default_workers", lambda: 0)
    Counting.seen, Counting.stop_at = 0, None


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Eight pairs of nine images of several sizes, in a file that names them."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for i in range(9):
        make_image(i).save(folder / "images" / f"{i}.png")
    rows = [
        {"caption": PROMPTS[i % 4], "jpg_0": f"images/{i}.png", "jpg_1": f"images/{i + 1}.png"}
        | {"label_0": LABELS[i][0], "label_1": LABELS[i][1]}
        for i in range(8)
    ]
    return lines(folder / "pairs.jsonl", rows)


def make_image(i: int) -> Image.Image:
    pixels = np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((32 + 8 * (i % 2), 32), Image.Resampling.NEAREST)


def lines(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def held(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def gaps_in(file: Path, names: tuple[str, ...] = TRIO) -> np.ndarray:
    return np.array([[row[f"gap_{name}"] for name in names] for row in held(file)])


def run(source: object, output: object, *more: str, trio: tuple[str, ...] = TRIO) -> int:
    return cli.main(["filter", str(source), "-o", str(output), "--rewards", *trio, *more])


def fails(capsys: pytest.CaptureFixture[str], *arguments: object, **options: tuple[str, ...]) -> str:
    capsys.readouterr()
    assert run(*arguments, **options) == 2  # type: ignore[arg-type]
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.splitlines()[-1]


def expected_gaps(records: list[PairRecord]) -> np.ndarray:
    """By each reward's own preprocessing, an image at a time; (N, 3)."""

    def score(name: str, reward: rewards.Reward, source: object, prompt: str) -> float:
        image = open_rgb(source)  # type: ignore[arg-type]
        if isinstance(reward, rewards.Prepared):
            return float(reward.reference([image], [prompt]))
        return float(np.asarray(image)[..., 0].mean() / 255)

    scorers = rewards.load_all(REAL)
    with torch.no_grad():
        rows = [
            [score(n, r, p.win, p.prompt) - score(n, r, p.lose, p.prompt) for n, r in scorers.items()]
            for p in records
        ]
    return np.array(rows)


def test_gaps_are_those_of_the_rewards_and_each_image_is_scored_once(pairs, tmp_path, capsys):
    out = tmp_path / "kept.jsonl"
    assert run(pairs, out, "--batch-size", "4", *ALL, trio=REAL) == 0
    assert Counting.seen == 16, "two images a pair, and no two pairs share image and prompt"
    source, kept = list(read_pairs(str(pairs), ties="soft")), held(out)
    gaps = gaps_in(out, REAL)
    np.testing.assert_allclose(gaps, expected_gaps(source), atol=1e-5)
    printed = capsys.readouterr().out
    assert "kept 6 of 6 preferences and 2 of 2 ties" in printed
    assert f"examples of both: {out.with_suffix('.html')}" in printed.splitlines()
    page = out.with_suffix(".html").read_text(encoding="utf-8")
    assert "8 of 8 pairs are kept" in page and page.count("<img") == 2 * 6
    assert [(row["label_0"], row["label_1"]) for row in kept] == [
        (0.5, 0.5) if max(label) == 0.5 else (max(label), min(label)) for label in LABELS
    ]


def test_an_image_in_several_pairs_of_a_prompt_is_scored_once(pairs, tmp_path):
    rows = [row | {"caption": "a red circle"} for row in held(pairs)]
    same = lines(pairs.with_name("same.jsonl"), [*rows, rows[0]])
    assert run(same, tmp_path / "kept.jsonl", *ALL) == 0
    assert Counting.seen == 9 and len(held(tmp_path / "kept.jsonl")) == 9


def test_other_limits_score_nothing_again_and_keep_what_the_rule_says(pairs, tmp_path, capsys):
    out = tmp_path / "kept.jsonl"
    assert run(pairs, out, *ALL) == 0
    every, gaps, scored = held(out), gaps_in(out), Counting.seen
    preferences = np.array([row["label_0"] for row in every])
    won = gaps[preferences > 0.5]
    tied = np.abs(gaps[preferences == 0.5])
    floors, ties = (
        [f"{x:.4f}" for x in numbers]
        for numbers in (np.quantile(won, 0.2, axis=0), (9, 9, tied[:, 2].mean()))
    )
    limits = Limits(*(tuple(map(float, numbers)) for numbers in (floors, ties)))
    options = ("--floor", *floors, "--tie", *ties)
    assert run(pairs, out, "--resume", "latest", *options) == 0
    assert Counting.seen == scored
    keep = consistent(gaps, preferences, limits)
    assert 0 < keep.sum() < 8
    assert held(out) == [row for row, kept in zip(every, keep, strict=True) if kept]

    found = json.loads((tmp_path / "kept.json").read_text())
    assert found["pairs"] == 8 and found["kept"] == keep.sum() and found["strategy"] is None
    assert found["rewards"] == list(TRIO) and found["floors"] == list(limits.floors)
    part = found["preferences"]
    below = won < limits.floors
    assert part["pairs"] == 6 and part["kept"] + sum(part["dropped_by"].values()) == 6
    assert (found["ties"]["pairs"], found["ties"]["kept"]) == (2, 1) and part["kept"] == keep.sum() - 1
    for place, name in enumerate(TRIO):
        figures = part["rewards"][name]
        assert figures["accuracy"] == pytest.approx((won[:, place] > 0).mean())
        assert figures["std"] == pytest.approx(won[:, place].std())
        assert figures["quantiles"]["0.5"] == pytest.approx(np.median(won[:, place]))
        assert figures["dropped"] == below[:, place].sum()
        assert figures["alone"] == (below[:, place] & (below.sum(1) == 1)).sum()
    assert found["ties"]["rewards"][RED]["quantiles"]["0.5"] == pytest.approx(tied[:, 2].mean())


def test_the_trainers_loader_reads_what_was_kept_wherever_it_moved(pairs, tmp_path, monkeypatch):
    world = tmp_path / "world"
    world.mkdir()
    (tmp_path / "data").rename(world / "data")
    monkeypatch.chdir(world)
    assert run("data/pairs.jsonl", "lists/deep/kept.jsonl", *ALL, trio=REAL) == 0
    assert held(world / "lists" / "deep" / "kept.jsonl")[0]["jpg_0"] == "../../data/images/0.png"
    world.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    kept = str(tmp_path / "moved" / "lists" / "deep" / "kept.jsonl")
    check_read(list(read_pairs(kept, ties="soft")), list(range(8)))
    cache = build_comparisons(
        tmp_path / "cache",
        read_pairs(kept, ties="soft"),
        lambda image: torch.from_numpy(np.array(image.resize((8, 8)))).permute(2, 0, 1),
        fingerprint={"contents": identity(kept)},
    )
    batch = cache.batch(range(8))
    assert batch.preference.tolist() == [1, 1, 0.5, 0.75, 1, 0.5, 1, 1]
    assert batch.prompts == [PROMPTS[i % 4] for i in range(8)]


def check_read(records: list[PairRecord], rows: list[int]) -> None:
    """These rows of the pairs, winners first."""
    assert len(records) == len(rows)
    for record, i in zip(records, rows, strict=True):
        first, second = (i, i + 1) if LABELS[i][0] >= LABELS[i][1] else (i + 1, i)
        assert record.prompt == PROMPTS[i % 4] and record.preference == max(LABELS[i])
        for source, number in ((record.win, first), (record.lose, second)):
            assert np.array_equal(np.asarray(open_rgb(source)), np.asarray(make_image(number)))


def test_images_in_parquet_stay_in_parquet(tmp_path, capsys):
    columns = {
        "jpg_0": [png(make_image(i)) for i in range(8)],
        "jpg_1": [png(make_image(i + 1)) for i in range(8)],
        "label_0": [float(a) for a, _ in LABELS],
        "label_1": [float(b) for _, b in LABELS],
        "caption": [PROMPTS[i % 4] for i in range(8)],
    }
    source = tmp_path / "pairs.parquet"
    pq.write_table(pa.table(columns), source)
    line = fails(capsys, source, tmp_path / "kept.jsonl", *ALL)
    assert "pairs.parquet row 0: got an image that is no file" in line and ".parquet" in line
    assert Counting.seen == 0
    out = tmp_path / "out" / "kept.parquet"
    assert run(source, out, *ALL) == 0
    source.unlink()
    check_read(list(read_pairs(str(out), ties="soft")), list(range(8)))
    assert pq.read_table(out).column_names[-3:] == [f"gap_{name}" for name in TRIO]
    assert Counting.seen == 16


def test_named_images_can_be_held_in_parquet(pairs, tmp_path):
    out = tmp_path / "kept.parquet"
    assert run(pairs, out, "--limit", "3", *ALL) == 0
    (tmp_path / "data").rename(tmp_path / "gone")
    check_read(list(read_pairs(str(out), ties="soft")), [0, 1, 2])


def test_a_folder_of_chosen_and_rejected(tmp_path):
    for side, first in (("chosen", 0), ("rejected", 1)):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        for i in range(4):
            make_image(i + first).save(tmp_path / "pairs" / side / f"{i}.png")
            (tmp_path / "pairs" / side / f"{i}.txt").write_text("a red circle")
    out = tmp_path / "kept.jsonl"
    assert run(tmp_path / "pairs", out, *ALL) == 0
    assert Counting.seen == 8, "files of other names are other images"
    records = list(read_pairs(str(out)))
    assert len(records) == 4 and {record.preference for record in records} == {1.0}


@pytest.mark.parametrize("torn", [False, True])
def test_a_stopped_run_goes_on_where_it_was(pairs, tmp_path, torn):
    out, journal = tmp_path / "kept.jsonl", tmp_path / "kept.jsonl.scores.jsonl"
    Counting.stop_at = 8
    assert run(pairs, out, "--batch-size", "4", *ALL) == 130
    assert not out.exists() and len(held(journal)) == 1 + 8
    if torn:
        journal.write_bytes(journal.read_bytes() + b'{"id": "00')
    Counting.stop_at = None
    assert run(pairs, out, "--batch-size", "4", "--resume", "latest", *ALL) == 0
    assert Counting.seen == 16 and len(held(journal)) == 1 + 16
    whole = tmp_path / "whole" / "kept.jsonl"
    assert run(pairs, whole, *ALL) == 0
    np.testing.assert_allclose(gaps_in(out), gaps_in(whole), atol=1e-6)


KILLED = """
import os, signal, sys
from t2ialign.cli import main as cli
from t2ialign.scoring import pairs
from tests.scoring.images import Counting
pairs.default_workers = lambda: 0
inner, left = Counting.score, [2]
def score(self, images, prompts):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(self, images, prompts)
Counting.score = score
cli.main(sys.argv[1:])
"""


@pytest.mark.rest
def test_a_killed_run_goes_on(pairs, tmp_path):
    out = tmp_path / "kept.jsonl"
    command = ["filter", str(pairs), "-o", str(out), "--rewards", *TRIO, "--batch-size", "2", *ALL]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", KILLED, *command], cwd=root, env=environment, check=False)
    assert done.returncode == -9 and not out.exists()
    before = len(held(tmp_path / "kept.jsonl.scores.jsonl")) - 1
    assert 0 < before < 16
    assert cli.main([*command, "--resume", "latest"]) == 0
    assert Counting.seen == 16 - before and len(held(out)) == 8


def test_a_broken_image_stops_or_is_left_out_with_its_pairs(pairs, tmp_path, capsys):
    out = tmp_path / "kept.jsonl"
    broken = tmp_path / "data" / "images" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    line = fails(capsys, pairs, out, "--batch-size", "4", *ALL)
    assert "images/3.png: got" in line and "expected a whole image" in line and not out.exists()
    assert run(pairs, out, "--unreadable", "skip", "--resume", "latest", *ALL) == 0
    said = capsys.readouterr()
    assert (
        "2 of 8 rows left out: 2 with an image that" in said.err and "2 rows left out, unreadable" in said.out
    )
    check_read(list(read_pairs(str(out), ties="soft")), [0, 1, 4, 5, 6, 7])
    found = json.loads((tmp_path / "kept.json").read_text())
    assert found["pairs"] == 8 and found["kept"] == 6 and found["unreadable"]["pairs"] == 2
    assert all("3.png" in text for text in found["unreadable"]["pictures"])

    make_image(3).save(broken)
    assert run(pairs, out, "--resume", "latest", *ALL) == 0
    check_read(list(read_pairs(str(out), ties="soft")), list(range(8)))


NUMBERLESS = ("tests.training.redness", "tests.training.brightness", "tests.training.redness:NotANumber")


def test_a_score_that_is_no_number_is_an_error(pairs, tmp_path, capsys):
    line = fails(capsys, pairs, tmp_path / "kept.jsonl", "--batch-size", "4", trio=NUMBERLESS)
    assert f"got no score of {NUMBERLESS[2]} (the score is nan)" in line and "pairs.jsonl line 2 win" in line
    assert not (tmp_path / "kept.jsonl").exists()


def test_a_pair_without_a_score_is_left_out_and_its_error_reported(pairs, tmp_path, caplog):
    output = tmp_path / "kept.jsonl"
    assert run(pairs, output, *ALL, "--unreadable", "skip", "--batch-size", "4", trio=NUMBERLESS) == 0
    unreadable = json.loads(output.with_suffix(".json").read_text())["unreadable"]
    assert unreadable["pairs"] == unreadable["rows"] == 4 and len(unreadable["pictures"]) >= 4
    assert all("(the score is nan)" in text for text in unreadable["pictures"])
    assert len(held(output)) < 8 and "4 without a score (first: line 2 win" in caplog.text


def test_a_reward_that_raises_everywhere_leaves_no_pair_and_one_line(pairs, tmp_path, capsys):
    code = tmp_path / "raises.py"
    code.write_text(
        "from rewards import Reward\n\n\nclass Raises(Reward):\n"
        "    def score(self, images, prompts):\n        return {}['x']\n"
    )
    trio = (*NUMBERLESS[:2], f"{code}:Raises")
    lines(pairs, held(pairs)[:3])
    line = fails(capsys, pairs, tmp_path / "a.jsonl", *ALL, trio=trio)
    assert "line 1 win: got no score of" in line and "KeyError ('x') from Raises.score" in line
    line = fails(capsys, pairs, tmp_path / "b.jsonl", *ALL, "--unreadable", "skip", trio=trio)
    assert "got no pair of 3 that all three rewards allow" in line


def test_a_reward_that_fails_names_the_pair(pairs, tmp_path, capsys):
    lines(pairs, [row | {"caption": "what?"} if i == 2 else row for i, row in enumerate(held(pairs))])
    trio = ("tests.training.redness", "tests.training.brightness", "tests.scoring.images:Fussy")
    line = fails(capsys, pairs, tmp_path / "kept.jsonl", *ALL, trio=trio)
    assert "line 3 win: got no score of tests.scoring.images:Fussy (got prompt 'what?'" in line


def test_published_limits_are_not_passed_over_in_silence(pairs, tmp_path, capsys):
    won = lines(pairs.with_name("won.jsonl"), [row for row in held(pairs) if row["label_0"] != 0.5])
    for i, (source, more, warns) in enumerate(
        [(pairs, (), True), (won, (), True), (won, ("--strategy", "1"), False), (pairs, ALL, False)]
    ):
        capsys.readouterr()
        run(source, tmp_path / str(i) / "kept.jsonl", *more)
        assert ("in units of aesthetic, clipscore-h, vqascore" in capsys.readouterr().err) is warns
    assert json.loads((tmp_path / "1" / "kept.json").read_text())["floors"] == [-0.5, 0, 0]
    assert json.loads((tmp_path / "2" / "kept.json").read_text())["floors"] == [0, 0, 0]


def test_nothing_kept_is_an_error_that_says_where_the_gaps_are(pairs, tmp_path, capsys):
    out = tmp_path / "kept.jsonl"
    none = ("--floor", "9", "9", "9", "--tie", "0", "0", "0")
    line = fails(capsys, pairs, out, *none)
    assert "got no pair of 8" in line and "kept.json)" in line and "--resume latest" in line
    assert json.loads((tmp_path / "kept.json").read_text())["kept"] == 0
    assert run(pairs, out, "--resume", "latest", *ALL) == 0


def test_a_source_that_changes_meanwhile_is_an_error(pairs, tmp_path, capsys, monkeypatch):
    rows, reader = held(pairs), read_pairs

    def changing(source, **options):
        yield from reader(source, **options)
        lines(pairs, rows[1:])

    monkeypatch.setattr("t2ialign.data.pairs.read_pairs", changing)
    assert "got other pairs than were scored" in fails(capsys, pairs, tmp_path / "kept.jsonl", *ALL)
    lines(pairs, rows)
    monkeypatch.setattr("t2ialign.data.pairs.read_pairs", reader)
    assert run(pairs, tmp_path / "kept.jsonl", "--resume", "latest", *ALL) == 0


def test_ties_alone_can_be_filtered(pairs, tmp_path, capsys):
    ties = lines(pairs.with_name("ties.jsonl"), [row for row in held(pairs) if row["label_0"] == 0.5])
    assert run(ties, tmp_path / "kept.jsonl", *ALL) == 0
    assert "kept 0 of 0 preferences and 2 of 2 ties" in capsys.readouterr().out
    figures = json.loads((tmp_path / "kept.json").read_text())["preferences"]["rewards"][RED]
    assert figures["accuracy"] is None and figures["quantiles"]["0.5"] is None


def test_users_errors_are_one_line(pairs, tmp_path, capsys):
    out = tmp_path / "kept.jsonl"
    for arguments, options, words in (
        ((pairs, out), {"trio": (RED, "toy-clip", RED)}, "expected three different ones"),
        ((pairs, out), {"trio": TRIO[:2]}, "expected 3 arguments"),
        ((pairs, out), {"trio": ("toy-clip", "nonsense", RED)}, "got reward 'nonsense'"),
        ((pairs, out, "--strategy", "1", "--floor", "0", "0", "0"), {}, "got both --strategy and --floor"),
        ((pairs, out, "--tie", "1", "-1", "1"), {}, "widths of at least 0"),
        ((pairs, out, "--floor", "nan", "0", "0"), {}, "expected finite numbers"),
        ((pairs, out, "--batch-size", "0"), {}, "expected at least 1"),
        ((pairs, tmp_path / "kept.csv"), {}, "expected an ending of .jsonl, .parquet"),
        ((pairs, pairs), {}, "in the place of"),
        ((tmp_path / "data", tmp_path / "data" / "kept.jsonl"), {}, "in the place of"),
        ((tmp_path / "none.jsonl", out), {}, "does not exist"),
        ((lines(pairs.with_name("empty.jsonl"), []), out, "--resume", "latest"), {}, "got no rows"),
    ):
        line = fails(capsys, *arguments, **options)
        assert words in line, line
        (tmp_path / "kept.jsonl.scores.jsonl").unlink(missing_ok=True)
    assert not out.exists()


def test_results_of_another_run_are_not_overwritten(pairs, tmp_path, capsys):
    out = tmp_path / "kept.jsonl"
    assert run(pairs, out, *ALL) == 0
    before = out.read_bytes()
    assert "from an earlier run; expected none" in fails(capsys, pairs, out)
    others = (RED, *TRIO[:2])
    line = fails(capsys, pairs, out, "--resume", "latest", trio=others)
    assert f"holds scores of {', '.join(TRIO)}" in line and out.read_bytes() == before
    (tmp_path / "kept.jsonl.scores.jsonl").unlink()
    assert "without kept.jsonl.scores.jsonl" in fails(capsys, pairs, out, "--resume", "latest")
