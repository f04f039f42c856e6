"""The readings of rewrites by rules: they are the draw, none is out of date, and what they add up to."""

import json
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from rewards.text.english import singular
from scripts.experiments.readings import rules_read
from scripts.experiments.readings.rules_read import (
    VERDICTS,
    draw,
    fingerprint,
    prompts,
    readings,
    shares,
    stale,
)
from t2ialign.rewriting.lexicon import CUES, aspects, kind_of
from t2ialign.rewriting.rules import explain
from t2ialign.rewriting.style import SLOTS, WORDS

DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))
published = pytest.mark.skipif(
    not (DATA / "uniworld-v1-eval").is_dir(), reason=f"no prompts in {DATA}; set T2IALIGN_DATA"
)
ENTRIES = {slot: json.loads(WORDS.read_text(encoding="utf-8"))[slot] for slot in SLOTS}


@pytest.fixture(scope="module")
def texts():
    return prompts(DATA)


def rewritten(prompt):
    return explain(prompt)[1]


@published
def test_the_readings_are_the_draw_and_none_is_out_of_date(texts):
    verdicts = readings()
    drawn = draw(texts, number=rules_read.LAST)
    assert [one.id for one in verdicts] == drawn[rules_read.FIRST :] and len(verdicts) == 100
    assert stale(verdicts, texts, rewritten) == [], "the rules changed: read these rewrites again"
    figures = rules_read.report(DATA)
    assert (
        figures["stale"] == [] and figures["unchanged"] == 49 and figures["rules"]["useful"]["mean"] == 0.39
    )


@published
def test_half_of_the_prompts_is_held_out_and_sets_take_turns(texts):
    assert 0.45 < sum(map(rules_read.held_out, texts.values())) / len(texts) < 0.55
    drawn = draw(texts, number=28)
    assert len(set(drawn)) == 28 and set(Counter(name.partition("/")[0] for name in drawn).values()) == {2}
    assert all(rules_read.held_out(texts[name]) for name in drawn)
    assert draw(texts, number=28) == drawn != draw(texts, number=28, seed=1)


def test_another_prompt_or_rewrite_makes_a_reading_stale():
    one = rules_read.Reading(
        "a/0", fingerprint("two cats"), fingerprint("TWO CATS"), "useful", "loud", "neutral"
    )
    texts = {"a/0": "two cats"}
    assert stale([one], texts, str.upper) == []
    assert stale([one], texts, str.title) == ["a/0"]
    assert stale([one], {"a/0": "two dogs"}, lambda _: "TWO CATS") == ["a/0"]
    assert stale([replace(one, id="a/1"), one], texts, str.upper) == ["a/1"]


def test_the_record_has_verdicts_and_no_texts(tmp_path):
    verdicts = readings()
    assert all(re.fullmatch(r"[0-9a-f]{16}", text) for one in verdicts for text in (one.prompt, one.rewrite))
    assert all(one.why and len(one.why.split()) <= 20 for one in verdicts)
    assert all(one.verdict == "neutral" for one in verdicts if one.prompt == one.rewrite)  # it is the prompt
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"read": [{**vars(verdicts[0]), "verdict": "good"}]}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"got verdict 'good', '\w+' on .*; expected of each one of useful"):
        readings(bad)


def test_the_rules_are_read_as_better_than_those_before_and_the_docs_say_how_much():
    verdicts = readings()
    new, old = (shares([getattr(one, name) for one in verdicts]) for name in ("verdict", "old"))
    assert new["useful"].low > old["useful"].high  # the intervals do not overlap
    docs = (Path(__file__).parents[2] / "docs" / "rewrite.md").read_text(encoding="utf-8")
    for name, some in (("verdict", new), ("old", old)):
        counts = Counter(getattr(one, name) for one in verdicts)
        row = " | ".join(
            f"{counts[word]} ({100 * some[word].low:.0f} to {100 * some[word].high:.0f})" for word in VERDICTS
        )
        assert row in docs


def test_shares_are_wilson_s():
    estimate = shares(["useful"] * 39 + ["neutral"] * 61)["useful"]
    assert (estimate.mean, estimate.count) == (0.39, 100)
    z, p, n = 1.959964, 0.39, 100
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    bounds = [(middle + sign * half) / (1 + z * z / n) for sign in (-1, 1)]
    assert [estimate.low, estimate.high] == pytest.approx(bounds, abs=1e-6)


@pytest.mark.parametrize("slot", SLOTS)
def test_what_is_added_is_seen_as_said(slot):
    """Else a second rewrite would add it again, or another word for the same."""
    for entry in ENTRIES[slot]:
        name = "photo" if slot == "medium" and entry.get("media") == ["photo"] else slot
        assert name in aspects(f"a cat, {entry['words']}"), entry["words"]


def test_cues_are_read_in_their_sense():
    assert aspects("a traffic light, a light blue fire hydrant, a stop sign and a sunflower") == set()
    assert aspects("candle light") == {"light"} and aspects("an 85mm shot") == {"photo", "composition"}
    assert kind_of("dogs") == "animal" and kind_of("wizard") == "person" and kind_of("idea") is None
    shows = json.loads(CUES.read_text(encoding="utf-8"))["shows"]
    for kind in ("person", "animal", "food", "scene", "object", "text", "imaginary"):
        nouns = shows[kind].split()
        assert len(nouns) == len(set(nouns)), kind
        assert all(kind_of(noun) for noun in nouns if "_" not in noun), kind
    assert singular("geese") in shows["animal"].split()


@pytest.mark.rest
@published
def test_the_counts_beside_the_words_are_those_of_the_prompts():
    def rows(file, key):
        return [row[key] for row in json.loads((DATA / file).read_text(encoding="utf-8"))]

    lines = (DATA / "flow-grpo/dataset/pickscore/test.txt").read_text(encoding="utf-8").splitlines()
    sources = {
        "diffusiondb": {
            *rows("imagereward/data/refl_data.json", "text"),
            *rows("imagereward/data/test.json", "prompt"),
        },
        "pickapic": {*rows("lpo/lpo/prompts/4k_training_prompts.json", "caption"), *lines},
    }
    assert {name: len(texts) for name, texts in sources.items()} == {"diffusiondb": 10_258, "pickapic": 5_824}
    for entry in (entry for entries in ENTRIES.values() for entry in entries):
        pattern = re.compile(rf"(?<![\w-]){re.escape(entry['words'])}(?![\w-])", re.IGNORECASE)
        counts = {name: sum(bool(pattern.search(text)) for text in texts) for name, texts in sources.items()}
        assert counts == {name: entry[name] for name in sources}, entry["words"]
