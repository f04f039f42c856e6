"""Claims on alignment without pairs, tiny: what each side learns from, and verdicts by hand."""

from pathlib import Path

import pytest

from scripts.experiments import preferences, stepwise
from scripts.experiments.preferences import BASE, CLAIMS, SIDES, TRAINING, Panel, TextPreferences, Unpaired
from t2ialign.data.rated import read_rated
from t2ialign.io import jsonl, manifest
from t2ialign.toy import preferences as toy

pytestmark = pytest.mark.rest

FEW = {"max_steps": 1, "batch_size": 2, "lr_warmup": 0, "lora_rank": 2}


def small(claim):
    """The claim with one step a side, whose images are judged to be right where a training was."""
    claim.seeds, claim.captions, claim.samples, claim.heldout, claim.choosing = (0,), 6, 2, 4, 2
    claim.training = {method: {**values, **FEW} for method, values in TRAINING.items()}
    return claim


@pytest.fixture
def judged(monkeypatch):
    monkeypatch.setattr(stepwise, "GUIDANCE", (1.0,))
    monkeypatch.setattr(
        stepwise,
        "oracle_on",
        lambda lora, prompts, seed, sampler: [float(lora is not None)] * (len(prompts) - 1) + [0.0],
    )
    monkeypatch.setattr(
        toy, "judge_samples", lambda folder: [i % 2 == 0 for i, _ in enumerate(manifest.read(folder))]
    )
    monkeypatch.setattr(
        preferences.labelled_pairs,
        "SAMPLER",
        {**preferences.labelled_pairs.SAMPLER, "num_inference_steps": 2},
    )


def measured(claim, folder: Path):
    claim.measure(folder, 0)
    (row,) = claim.rows([folder])
    assert [line["side"] for line in jsonl.read(folder / SIDES)] == [BASE, *claim.sides]
    before = (folder / SIDES).read_text()
    claim.measure(folder, 0)
    assert (folder / SIDES).read_text() == before
    assert len(claim.figures([folder])) == 1
    return row


def test_text_preferences_learn_from_renders_alone(judged, tmp_path):
    claim = small(TextPreferences())
    row = measured(claim, tmp_path)
    images = list(read_rated(str(tmp_path / "images.jsonl")))
    assert len(images) == 2 * len(set(claim.prompts(0))) and all(image.liked for image in images)
    assert row.holds and row.measured["sides"]["tdpo"]["gain"]["mean"] == 0.75
    assert row.measured["settings"]["tdpo unguarded"]["guard"] == "none"


def test_unpaired_likes_are_the_images_of_the_pairs(judged, tmp_path):
    row = measured(small(Unpaired()), tmp_path)
    assert row.holds and row.measured["share"] == {"kto": 1.0, "bco": 1.0}
    few = jsonl.read(tmp_path / "few.jsonl")
    assert {one["liked"] for one in few} == {True, False}


def test_few_liked_are_a_fifth():
    pairs = [{"prompt": "p", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(100)]
    rows = preferences.few_liked(pairs, 0)
    assert sum(row["liked"] for row in rows) == 25 and len(rows) == 125
    assert rows == preferences.few_liked(pairs, 0) != preferences.few_liked(pairs, 1)


def test_a_panel_is_compared_with_one_of_its_tools(judged, tmp_path):
    claim = small(Panel())
    claim.tools = ("toy-clip", "toy-clip-b")
    row = measured(claim, tmp_path)
    sides = row.measured["sides"]
    assert sides["panel"]["pairs"][0] <= sides["one reward"]["pairs"][0]
    assert not row.holds, "both gain alike"


def test_claims():
    assert [type(claim) for claim in CLAIMS] == [TextPreferences, Unpaired, Panel]
    assert all(claim.seeds == (0, 1, 2) for claim in CLAIMS)
