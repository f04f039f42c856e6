"""The demo, whole, in small: the verbs it is made of, its files, and that a second run reuses the first."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.experiments.demo import AT_SUITE, GAIN, Demo
from t2ialign.cli import demo, prove
from t2ialign.cli.main import main
from t2ialign.data.pairs import read_pairs
from t2ialign.evaluation.provenance import hash_files
from t2ialign.io import jsonl, manifest
from t2ialign.toy.captions import is_held_out

pytestmark = pytest.mark.rest

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "max_steps": 2,
    "batch_size": 4,
    "evaluate_every": 1,
    "checkpoint_every": 1,
    "lora_rank": 2,
    "trackers": (),
}


@pytest.fixture(scope="module")
def small() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "TRAIN_PROMPTS", 12)
        patch.setattr(demo, "PER_PROMPT", 4)
        patch.setattr(demo, "HELD_OUT", 12)
        patch.setattr(demo, "TRAINING", {**demo.TRAINING, **SMALL})
        yield patch


@pytest.fixture(scope="module")
def finished(small: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demo") / "run"
    assert main(["demo", "--output", str(output)]) == 0
    return output


def test_result_has_the_promised_fields(finished: Path) -> None:
    result = json.loads((finished / "demo.json").read_text())
    for model in ("base", "aligned"):
        low, high = result[model]["ci95"]
        assert low <= result[model]["accuracy"] <= high
        assert len(result[model]["by_category"]) == 6
    assert result["pairs"] == len(jsonl.read(finished / "pairs.jsonl")) > 0
    assert result["steps"] == 2 and result["seconds"] > 0


def test_training_and_evaluation_share_no_prompt_and_no_seed(finished: Path) -> None:
    train, held = manifest.read(finished / "samples"), manifest.read(finished / "base")
    assert not any(is_held_out(row.prompt) for row in train)
    assert all(is_held_out(row.prompt) for row in held)
    assert not {row.seed for row in train} & {row.seed for row in held}
    aligned = manifest.read(finished / "aligned")
    assert [(row.prompt, row.seed) for row in aligned] == [(row.prompt, row.seed) for row in held]


def test_pairs_are_in_the_format_that_users_bring(finished: Path) -> None:
    for record in read_pairs(str(finished / "pairs.jsonl")):
        assert isinstance(record.win, Path) and record.win.is_file() and record.win != record.lose


def test_the_report_is_one_file_with_images_and_marks(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png") == 24 and "http" not in page.replace("http://www.w3.org", "")
    assert "pass" in page and "fail" in page and "<svg" in page


def test_the_report_leads_with_how_many_images_were_fixed_and_broken(finished: Path) -> None:
    sides = [jsonl.read(finished / name / "scores.jsonl") for name in ("base", "aligned")]
    pairs = [(before["score"], after["score"]) for before, after in zip(*sides, strict=True)]
    page = " ".join((finished / "report.html").read_text(encoding="utf-8").split())
    for verdicts, name in (((0.0, 1.0), "fixed"), ((1.0, 0.0), "broken")):
        shown = re.search(rf"<b[^>]*>(\d+)</b> <span>of 12 images {name}</span>", page)
        assert shown is not None and int(shown[1]) == pairs.count(verdicts)
    places = [page.index(words) for words in ("images fixed", "images broken", "<img", "<svg", "<table")]
    assert places == sorted(places), "counts, then images, then charts and tables"


def test_a_second_run_reuses_everything(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.stat().st_mtime_ns for file in finished.rglob("*") if file.is_file()}
    assert main(["demo", "--output", str(finished)]) == 0
    assert {file: file.stat().st_mtime_ns for file in finished.rglob("*") if file.is_file()} == before
    assert "held-out" in capsys.readouterr().out


def test_a_demo_cut_off_goes_on(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its result and half of its last images, only what is missing is made again."""
    kept = finished / "samples" / "00000.png"
    lost = finished / "aligned" / "00003.png"
    pixels, made = lost.read_bytes(), kept.stat().st_mtime_ns
    for file in (lost, finished / "aligned" / "scores.jsonl", finished / "demo.json"):
        file.unlink()
    assert main(["demo", "--output", str(finished)]) == 0
    assert lost.read_bytes() == pixels and kept.stat().st_mtime_ns == made


def test_another_seed_or_another_folder_is_refused(finished: Path, tmp_path: Path) -> None:
    assert main(["demo", "--output", str(finished), "--seed", "5"]) == 2
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["demo", "--output", str(tmp_path)]) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_prove_pools_the_seeds(finished: Path, tmp_path: Path) -> None:
    first, other = tmp_path / "first", tmp_path / "other"
    shutil.copytree(finished, first)
    for name in ("base", "aligned"):  # as if the suite's guidance gave the same images
        shutil.copytree(first / name, first / AT_SUITE / name)
    shutil.copytree(first, other)
    for file in other.rglob("scores.jsonl"):
        rows = jsonl.read(file)
        jsonl.rewrite(file, [row | {"seed": row["seed"] + 100_000} for row in rows])
    row, at_suite = Demo().rows([first, other])
    assert (row.measured["guidance"], at_suite.measured["guidance"]) == (2.0, 4.0)
    assert at_suite.measured["difference"] == row.measured["difference"]
    assert row.measured["base"]["count"] == 24 and row.measured["base"]["prompts"] <= 12
    assert row.ci95 is not None and row.ci95[0] <= row.measured["difference"]["mean"] <= row.ci95[1]
    figure, _ = Demo().figures([first, other])
    assert figure.body.count("<rect") >= 14  # six categories and all, before and after


def test_hash_follows_names_and_contents(tmp_path: Path) -> None:
    def digest() -> str:
        return hash_files([("part", tmp_path, "*.py")])

    (tmp_path / "a.py").write_text("x = 1")
    first = digest()
    (tmp_path / "notes.txt").write_text("not code")
    assert digest() == first
    (tmp_path / "a.py").write_text("x = 2")
    second = digest()
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, digest()}) == 3


def test_the_proof_on_file_is_of_this_code() -> None:
    """A row measured on older code is named among the skips, so that nobody quotes it unawares."""
    file = ROOT / "proofs" / "demo.json"
    if not file.exists():
        pytest.skip(f"{file.name} is not measured yet; run t2ialign prove demo")
    found = json.loads(file.read_text())
    needed = {"claim", "source", "paper", "measured", "ci95", "seeds", "seconds", "verdict", "tree"}
    for row in found:
        assert needed <= set(row)
        holds = row["measured"]["difference"]["mean"] >= GAIN and (
            row["measured"]["aligned"]["ci95"][0] > row["measured"]["base"]["ci95"][1]
        )
        assert row["verdict"] == ("holds" if holds else "does not hold")
    reasons = {why for row in found if (why := prove.stale(row, prove.recorded_files(file))) is not None}
    if reasons:
        pytest.skip(f"{file.name} is {'; '.join(reasons)}; delete runs/prove and run t2ialign prove demo")
