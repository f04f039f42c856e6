"""Claims and seeds as runs of their own: resumed, judged when complete, merged, never of mixed code."""

import json
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from scripts.experiments.claim import Claim, Figure, Row
from t2ialign.cli import prove
from t2ialign.cli.main import main
from t2ialign.evaluation import provenance
from t2ialign.evaluation.provenance import source_hash

ROOT = Path(__file__).resolve().parents[2]


class Coin(Claim):
    """Measures a number that the test chooses."""

    seeds = (0, 1)
    paper = "Nobody 1999"

    def __init__(self, name: str, value: Callable[[int], float]) -> None:
        self.text, self.value, self.calls = name, value, list[int]()

    def measure(self, folder: Path, seed: int) -> None:
        self.calls.append(seed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "value.json").write_text(json.dumps(self.value(seed)))

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        values = [json.loads((folder / "value.json").read_text()) for folder in folders]
        mean = sum(values) / len(values)
        return [Row(self.text, {"mean": mean, "each": values}, (min(values), max(values)), mean > 0.5)]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        return [Figure("a chart & more", "<svg></svg>", "read it")]


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> list[Coin]:
    """A subject of two claims under the name demo."""
    made = [Coin("heads <win>", lambda seed: 0.75 + 0.1 * seed), Coin("tails win", lambda seed: 0.25)]
    module = types.ModuleType("scripts.experiments.demo")
    module.CLAIMS = tuple(made)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "scripts.experiments.demo", module)
    return made


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., int]:
    def prove_demo(*options: str) -> int:
        folders = [f"--work={tmp_path / 'work'}", f"--output={tmp_path / 'proofs'}"]
        return main(["prove", "demo", *folders, *options])

    return prove_demo


def rows(tmp_path: Path) -> list[dict]:
    return json.loads((tmp_path / "proofs" / "demo.json").read_text())


def test_all_claims_are_measured_and_judged(claims, call, tmp_path):
    assert call() == 0
    first, second = rows(tmp_path)
    assert (first["claim"], first["verdict"]) == ("heads <win>", "holds")
    assert first["measured"]["mean"] == pytest.approx(0.8) and first["ci95"] == [0.75, 0.85]
    assert (second["verdict"], second["seeds"], second["paper"]) == ("does not hold", [0, 1], "Nobody 1999")
    assert second["source"] == "t2ialign prove demo --claim 2" and second["tree"] == source_hash()
    assert set(first) >= {"claim", "source", "paper", "measured", "ci95", "seeds", "seconds", "verdict"}
    page = (tmp_path / "proofs" / "demo.html").read_text()
    assert "heads &lt;win&gt;" in page and "a chart &amp; more" in page and page.count("<svg>") == 2
    assert "<script" not in page and "1 of 2 rows hold" in page


def test_one_claim_and_seed_at_a_time_and_nothing_twice(claims, call, tmp_path, capsys):
    assert call("--claim", "2", "--seed", "1") == 0
    assert [row["verdict"] for row in rows(tmp_path)] == ["not tested", "not tested"]
    assert rows(tmp_path)[1]["seeds"] == [1] and rows(tmp_path)[1]["measured"] is None
    assert "claim 2: seeds 0 are still to run" in capsys.readouterr().out
    assert call("--claim", "2") == 0
    assert [row["verdict"] for row in rows(tmp_path)] == ["not tested", "does not hold"]
    assert call() == 0
    assert (claims[0].calls, claims[1].calls) == ([0, 1], [1, 0])


def test_a_killed_claim_goes_on_and_its_time_adds_up(claims, call, tmp_path):
    def die(seed: int) -> float:
        raise KeyboardInterrupt

    whole, claims[0].value = claims[0].value, die
    assert call("--claim", "1") == 130
    note = tmp_path / "work" / "demo" / "claim-1" / "seed-0.json"
    before = json.loads(note.read_text())
    assert before["done"] is False and before["tree"] == source_hash()
    note.write_text(json.dumps(before | {"seconds": 100.0}))
    claims[0].value = whole
    assert call("--claim", "1") == 0
    assert claims[0].calls == [0, 0, 1] and rows(tmp_path)[0]["seconds"] >= 100


def forget_files(work: Path) -> None:
    """Make the notes those of runs that recorded no files, as all did before."""
    for note in work.glob("demo/claim-*/seed-*.json"):
        note.write_text(json.dumps({k: v for k, v in json.loads(note.read_text()).items() if k != "files"}))


def test_runs_of_older_code_are_refused(claims, call, monkeypatch, capsys, tmp_path):
    assert call() == 0
    forget_files(tmp_path / "work")
    monkeypatch.setattr(provenance, "source_hash", lambda: "f" * 16)
    assert call("--claim", "1") == 2
    assert "expected today's, ffffffffffffffff; delete" in capsys.readouterr().err


def test_a_claim_of_older_code_keeps_its_row_while_another_is_measured(claims, call, tmp_path):
    assert call() == 0
    forget_files(tmp_path / "work")
    note = tmp_path / "work" / "demo" / "claim-1" / "seed-0.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"tree": "0" * 16}))
    before = rows(tmp_path)[0]
    assert call("--claim", "2") == 0
    assert rows(tmp_path)[0] == before


def test_runs_record_what_they_loaded_and_check_says_what_is_stale(
    claims, call, tmp_path, capsys, monkeypatch
):
    assert call() == 0
    recorded = prove.recorded_files(tmp_path / "proofs" / "demo.json")
    assert set(recorded) == {"1", "2"} and "t2ialign/cli/prove.py" in recorded["1"]["files"]
    monkeypatch.setattr(provenance, "source_hash", lambda: "f" * 16)
    assert call("--check") == 0, "another tree is no matter where no loaded file has changed"
    assert "2 of 2 rows are of today's code" in capsys.readouterr().out
    assert call() == 0 and claims[0].calls == [0, 1], "nothing is measured again"
    recorded["2"]["files"]["t2ialign/cli/prove.py"] = "0" * 16
    (tmp_path / "proofs" / "demo.files.json").write_text(json.dumps(recorded))
    assert call("--check") == 1
    assert "stale: tails win: measured on another t2ialign/cli/prove.py" in capsys.readouterr().out
    (tmp_path / "proofs" / "demo.files.json").unlink()
    assert call("--check") == 1 and claims[0].calls == [0, 1]


def test_a_run_inherits_the_record_of_what_it_shares(claims, call, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / provenance.RECORD).write_text(json.dumps({"t2ialign/peers.py": "0" * 16}))
    monkeypatch.setattr(claims[0], "shared", lambda folder, seed: shared)
    assert call() == 0
    assert list(prove.recorded_files(tmp_path / "proofs" / "demo.json")) == ["2"]
    assert "t2ialign/cli/prove.py" in json.loads((shared / provenance.RECORD).read_text())
    assert rows(tmp_path)[0]["verdict"] == "not tested", "a file that made it has changed"


@pytest.mark.parametrize(
    "options, words",
    [
        (["--claim", "3"], "got --claim 3; expected one of 1, 2"),
        (["--seed", "7"], "got --seed 7; expected one of 0, 1"),
    ],
)
def test_numbers_that_are_not_there_are_told(claims, call, capsys, options, words):
    assert call(*options) == 2
    assert words in capsys.readouterr().err


def test_subjects_are_files_and_their_claims_are_whole():
    assert {"demo", "rewards"} <= set(prove.subjects())
    assert "claim" not in prove.subjects() and "page" not in prove.subjects()
    for subject in prove.subjects():
        for claim in prove.load(subject).values():
            assert claim.text and len(set(claim.seeds)) == len(claim.seeds) >= (1 if claim.single_seed else 3)


@pytest.mark.parametrize("subject", [name for name in prove.subjects() if name != "demo"])
def test_the_proofs_on_file_are_of_this_code(subject):
    """Rows measured on older code are named among the skips, so that nobody quotes them unawares."""
    file = ROOT / "proofs" / f"{subject}.json"
    if not file.exists():
        pytest.skip(f"{file.name} is not measured yet; run t2ialign prove {subject}")
    found = json.loads(file.read_text())
    for row in found:
        assert row["verdict"] in ("holds", "does not hold", "not tested")
    recorded = prove.recorded_files(file)
    stale = {row["claim"] for row in found if prove.stale(row, recorded) is not None}
    if stale:
        pytest.skip(
            f"{file.name}: {len(stale)} rows are of older code or not tested; run t2ialign prove {subject}"
        )
