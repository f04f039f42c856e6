"""Rates of losses and of false alarms, by hand and on the published pairs."""

import json
import os
from pathlib import Path

import pytest

from scripts.experiments.survival import (
    READ,
    Pair,
    Reading,
    drawn,
    false_alarms,
    figures,
    flagged,
    published_pairs,
    read_verdicts,
    shuffled,
    still_reported,
)
from t2ialign.evaluation.statistics import wilson
from t2ialign.rewriting.survival import Lost, check

DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))
published = pytest.mark.skipif(
    not (DATA / "unigenbench/data/test_prompts_en.csv").is_file(),
    reason=f"no pairs in {DATA}; set T2IALIGN_DATA",
)

PAIRS = [
    Pair("s/0", "two dogs", "dogs"),
    Pair("s/1", "three cats", "3 cats"),
    Pair("s/2", "a cat", "a dog"),
    Pair("s/3", "no hat", "a hat"),
]


def reading(pair, what, verdict, words=""):
    return Reading(pair, what, words, verdict, "", True)


def test_flagged_and_shuffled_by_hand():
    lost = flagged(PAIRS, check)
    assert lost == {"s/0": [Lost("number", "two dogs")], "s/3": [Lost("negation", "no hat")]}
    assert [pair.odd for pair in PAIRS] == [False, True, False, True]
    # two dogs | 3 cats, three cats | a hat, no hat | dogs: all lost
    assert shuffled(PAIRS, check) == 1
    assert shuffled([Pair("s/0", "two cats", "cats"), Pair("s/1", "2 cats", "two cats")], check) == 0.5


def test_false_alarms_by_hand():
    readings = [
        reading("s/1", "quote", "true"),
        reading("s/1", "negation", "false alarm"),
        reading("s/3", "negation", "true"),
        reading("s/5", "quote", "true"),
    ]
    rates = false_alarms(readings)
    assert {kind: (rate.mean, rate.count) for kind, rate in rates.items()} == {
        "all": (0.25, 4),
        "quote": (0.0, 2),
        "negation": (0.5, 2),
    }
    assert rates["all"].prompts == 3
    with pytest.raises(ValueError, match="got no readings; expected at least one"):
        false_alarms([])


@pytest.mark.parametrize(("wrong", "pairs"), [(0, 20), (11, 11), (7, 20)])
def test_no_interval_is_without_width_and_losses_of_a_pair_are_no_further_trials(wrong, pairs):
    verdicts = ["false alarm" if place < wrong else "true" for place in range(pairs)]
    once = [reading(f"s/{place}", "quote", verdict) for place, verdict in enumerate(verdicts)]
    interval, other = false_alarms(once)["quote"], wilson(wrong, pairs)
    assert (interval.mean, interval.low, interval.high) == pytest.approx(
        (other.mean, other.low, other.high), abs=1e-12
    )
    assert interval.high - interval.low > 0.1
    twice = false_alarms([*once, *once])["quote"]
    assert (twice.low, twice.high) == (interval.low, interval.high)
    assert (twice.count, twice.prompts) == (2 * pairs, pairs)


def test_only_what_is_reported_today_is_kept():
    readings = [reading("s/3", "negation", "true", "no hat"), reading("s/3", "negation", "true", "no coat")]
    readings.append(reading("s/1", "negation", "true"))
    assert still_reported(readings, flagged(PAIRS, check)) == readings[:1]


def test_unknown_verdicts_are_refused(tmp_path):
    file = tmp_path / "read.json"
    row = {"pair": "s/1", "what": "quote", "words": "", "verdict": "maybe", "why": "", "drawn": True}
    file.write_text(json.dumps({"read": [row]}))
    with pytest.raises(ValueError, match="got verdict 'maybe' on s/1; expected true or false alarm"):
        read_verdicts(file)


def test_the_record_is_of_the_drawn_pairs():
    record = json.loads(READ.read_text())
    readings = read_verdicts()
    chosen = drawn(record["flagged"])
    assert len(chosen) == 30 and {r.pair for r in readings if r.drawn} == set(chosen)
    assert all(int(r.pair.rpartition("/")[2]) % 2 for r in readings) and all(r.why for r in readings)
    rates = false_alarms([r for r in readings if r.drawn])
    assert (rates["quote"].mean, rates["quote"].count) == (0, 20)
    assert (rates["negation"].mean, rates["negation"].count) == (1, 12)


@published
def test_figures_of_the_published_pairs():
    pairs = published_pairs(DATA)
    assert len(pairs) == 553 + 600 and len({pair.id for pair in pairs}) == 1153
    report = figures(DATA, check)
    table = report["flagged"]
    assert table["geneval even"]["flagged"] == table["geneval odd"]["flagged"] == 0
    assert table["unigenbench odd"]["quote"] == 27
    assert report["true losses no longer reported"] == 0
    today = report["false alarms of today's check, all that was read"]["negation"]
    assert today["mean"] < report["false alarms of the first check, all that was read"]["negation"]["mean"]
    assert json.dumps(report)


@published
def test_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"evaluation_metadata.jsonl"):
        published_pairs(tmp_path)
