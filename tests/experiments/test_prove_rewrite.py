"""Claims of rewriting on published files: how they are judged, by hand, and their verdicts there."""

import json
import os
from pathlib import Path

import pytest

from scripts.experiments import keypoint_rules, survival
from scripts.experiments.keypoint_rules import KeypointRulesClaim
from scripts.experiments.survival import SurvivalClaim
from t2ialign.cli import prove
from t2ialign.cli.main import main

pytestmark = pytest.mark.rest

DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))
PARTS = ("geneval", "t2i-compbench", "unigenbench", "bagel-geneval-long")
published = pytest.mark.skipif(
    not all((DATA / part).is_dir() for part in PARTS),
    reason=f"not all of {PARTS} in {DATA}; set T2IALIGN_DATA",
)


def found(**change) -> dict:
    """What the first claim leaves: GenEval without a fault, 85 of 100 prompts, 70 of 100 test points."""
    counts = {
        "GenEval": {name: [100, 100, 95] for name in ("counting", "colour", "position")},
        "T2I-CompBench": {"counting": [10, 10, 10], "size": [10, 0, 0]},
        "UniGenBench": {"Style": [50, 0, 40], "Attribute - Size": [50, 0, 30]},
    }
    return {"counts": counts, "prompts": 100, "alike": 85} | change


def judged(folder: Path, *seeds: dict, claim=KeypointRulesClaim, file: str = keypoint_rules.FILE) -> list:
    folders = [folder / str(seed) for seed in range(len(seeds))]
    for one, what in zip(folders, seeds, strict=True):
        one.mkdir(exist_ok=True)
        (one / file).write_text(json.dumps(what))
    return claim().rows(folders)


def test_key_points_are_judged_at_their_marks(tmp_path):
    rows = judged(tmp_path, *[found()] * 3)
    assert [row.holds for row in rows] == [True, True, True]
    geneval, by_hand, points = (row.measured for row in rows)
    assert geneval["colour recall"]["mean"] == geneval["position precision"]["mean"] == 0.95
    assert by_hand["prompts with the very kinds"]["mean"] == 0.85
    assert (by_hand["recall of kinds"]["mean"], by_hand["precision of kinds"]["mean"]) == (0.5, 1.0)
    assert points["recall"]["mean"] == 0.7 and points["by test point"]["Style"] == 0.8
    assert rows[1].ci95 == pytest.approx((0.767, 0.907), abs=1e-3)
    assert json.dumps([row.measured for row in rows])

    counts = json.loads(json.dumps(found()["counts"]))
    counts["GenEval"]["colour"] = [100, 101, 95]
    assert not judged(tmp_path, *[found(counts=counts)] * 3)[0].holds
    assert judged(tmp_path, *[found(counts=counts)] * 3)[0].measured["colour precision"]["mean"] < 0.95
    assert not judged(tmp_path, *[found(alike=84)] * 3)[1].holds
    assert not judged(tmp_path, *[found(prompts=99)] * 3)[1].holds
    counts["UniGenBench"]["Style"] = [50, 0, 39]
    assert not judged(tmp_path, *[found(counts=counts)] * 3)[2].holds


def test_rules_that_differ_from_run_to_run_prove_nothing(tmp_path):
    rows = judged(tmp_path, found(), found(), found(alike=86))
    assert [row.holds for row in rows] == [False, False, False]


def alarms(**change) -> dict:
    rate = {"all": {"mean": 0.4, "ci95": [0.2, 0.6], "count": 32, "prompts": 30}}
    flagged = {
        f"{name} {half}": {"pairs": pairs, "flagged": 1}
        for name, pairs in (("geneval", 276), ("unigenbench", 300))
        for half in ("even", "odd")
    }
    flagged["geneval even"]["pairs"] = 277
    figures = {survival.FIRST: rate, survival.ALL: rate, survival.TODAY: rate, "flagged": flagged}
    return figures | {"true losses no longer reported": 0, "drawn pairs that were read": 30} | change


def test_survival_is_judged_by_whole_runs_and_a_whole_record(tmp_path):
    def rows(*seeds: dict) -> list:
        return judged(tmp_path, *seeds, claim=SurvivalClaim, file=survival.FILE)

    run, rates = rows(*[alarms()] * 3)
    assert run.holds and run.measured["pairs"] == {"geneval": 553, "unigenbench": 600}
    assert rates.holds and rates.ci95 == (0.2, 0.6) and rates.measured[survival.FIRST]["all"]["mean"] == 0.4
    fewer = alarms()
    fewer["flagged"]["unigenbench odd"]["pairs"] = 299
    assert [row.holds for row in rows(*[fewer] * 3)] == [False, True]
    assert [row.holds for row in rows(*[alarms(**{"drawn pairs that were read": 29})] * 3)] == [True, False]
    assert [row.holds for row in rows(*[alarms(**{"true losses no longer reported": 1})] * 3)] == [
        True,
        False,
    ]
    assert [row.holds for row in rows(alarms(), alarms(), fewer)] == [False, False]


def number_of(kind: type) -> str:
    (found,) = [number for number, claim in prove.load("rewrite").items() if isinstance(claim, kind)]
    return str(found)


@pytest.mark.parametrize("kind", [KeypointRulesClaim, SurvivalClaim])
def test_without_the_published_files_nothing_is_claimed(tmp_path, monkeypatch, capsys, kind):
    monkeypatch.setenv("T2IALIGN_DATA", str(tmp_path / "absent"))
    given = ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "proofs")]
    assert main(["prove", "rewrite", "--claim", number_of(kind), *given]) == 2
    assert "got no geneval in" in capsys.readouterr().err
    assert not (tmp_path / "proofs").exists()
    rows = prove.write(tmp_path / "proofs", tmp_path / "work", "rewrite")
    assert {row["verdict"] for row in rows} == {"not tested"}


@published
def test_the_published_files_say_what_is_claimed(tmp_path):
    """Through the command, one seed each, judged on it."""
    rules, checks = KeypointRulesClaim(), SurvivalClaim()
    for claim in (rules, checks):
        claim.measure(tmp_path / type(claim).__name__, 0)
    rows = [row for one in (rules, checks) for row in one.rows([tmp_path / type(one).__name__])]
    assert [row.holds for row in rows] == [True] * 5
    geneval, by_hand, points, run, rates = rows
    assert min(one["mean"] for one in geneval.measured.values()) >= 0.95
    assert by_hand.measured["prompts with the very kinds"]["count"] == 100
    assert points.measured["recall"]["count"] > 850 and len(points.measured["by test point"]) == 27
    assert sum(run.measured["pairs"].values()) == 1153
    assert rates.measured[survival.FIRST]["all"]["prompts"] == 30
    table, listed = rules.figures([tmp_path / "KeypointRulesClaim"])
    assert "colour: recall" in table.body and listed.body.count("<tr>") == 1 + 27
