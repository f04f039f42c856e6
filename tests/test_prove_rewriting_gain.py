"""The claims on the embedded rewriter, made small: what is measured, what is judged, what decides."""

import json

import pytest

from rewards.keypoint_oracle import shapes_points
from rewards.shapes_world import COLOURS, SHAPES
from t2ialign.proofs import rewriter_runs as runs
from t2ialign.proofs.rewriter_pictures import Pictures
from t2ialign.proofs.rewriting_best_of import BestOfClaim, best
from t2ialign.proofs.rewriting_gain import (
    CAPTION,
    GRPO,
    PLAIN,
    PROMPT,
    RESULT,
    SFT,
    SHUFFLED,
    RewritingClaim,
)

pytest.importorskip("trl")

SMALL = {
    "sizes": runs.Sizes(rows=40, prompts=8),
    "sft": {**runs.SFT_SETTINGS, "max_steps": 2, "batch_size": 4, "lr_warmup": 0},
    "grpo": {**runs.GRPO_SETTINGS, "max_steps": 1, "batch_size": 4, "group": 2, "num_steps": 2},
    "heldout": 6,
}


def small(claim):
    for name, value in SMALL.items():
        setattr(claim, name, value)
    claim.seeds = (0,)
    return claim


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    root = tmp_path_factory.mktemp("prove")
    claim, folder = small(RewritingClaim()), root / "claim-1" / "seed-0"
    claim.measure(folder, 0)
    return claim, folder


def test_every_way_is_judged_for_what_is_meant(measured):
    claim, folder = measured
    found = json.loads((folder / RESULT).read_text())
    assert set(found["matches"]) == {PROMPT, CAPTION, SFT, PLAIN, GRPO, SHUFFLED}
    asked = claim.asked(0)
    assert all(phrasing.held_out for phrasing in asked)
    assert found["texts"][PROMPT] == [phrasing.prompt for phrasing in asked]
    for name, each in found["matches"].items():
        for caption, own in zip(found["captions"], each, strict=True):
            assert len(own) == len(shapes_points(caption)), name
    pictures = Pictures(found["captions"], first_seed=4_000_000)
    assert pictures.matches(found["texts"][CAPTION]) == found["matches"][CAPTION]


def test_rows_and_figures(measured):
    claim, folder = measured
    steps, thought, shuffled = claim.rows([folder])
    accuracy = steps.measured["oracle_accuracy"]
    assert steps.measured["same_text_as_the_caption"][CAPTION] == 1.0
    assert not steps.holds  # nothing was learnt in three updates
    assert 0 <= accuracy[CAPTION]["mean"] <= 1 and not thought.holds and not shuffled.holds
    table = claim.figures([folder])[1].body
    assert table.count("<tr>") == 1 + len(steps.measured["by_key_point"])


def test_the_verdict_follows_the_intervals(measured, tmp_path):
    claim, folder = measured
    captions = [
        f"a {size} {colour} {shape}" for size in ("small", "large") for colour in COLOURS for shape in SHAPES
    ]
    found = json.loads((folder / RESULT).read_text())
    found |= {"captions": captions, "texts": dict.fromkeys(found["texts"], captions)}

    def shown(share):
        """The thing always, that there is nothing else in this share of the pictures."""
        return [[1.0, float(place < share * len(captions))] for place in range(len(captions))]

    found["matches"] = {PROMPT: shown(0), SFT: shown(0.3), PLAIN: shown(0.3), CAPTION: shown(1)}
    for grpo, shuffled, verdict in ((0.8, 0.1, True), (0.4, 0.4, False)):
        found["matches"] |= {GRPO: shown(grpo), SHUFFLED: shown(shuffled)}
        (tmp_path / RESULT).write_text(json.dumps(found))
        steps, thought, other = claim.rows([tmp_path])
        assert steps.holds is verdict and other.holds is verdict and not thought.holds


def test_the_rewriters_are_made_once(measured):
    _, folder = measured
    shared = folder.parents[1] / "rewriters" / "seed-0"
    before = {
        name: (shared / name / "model.safetensors").stat().st_mtime_ns for name in (runs.SFT, runs.GRPO)
    }
    claim = small(BestOfClaim())
    claim.n, claim.heldout = 2, 4
    own = folder.parents[1] / "claim-2" / "seed-0"
    claim.measure(own, 0)
    after = {name: (shared / name / "model.safetensors").stat().st_mtime_ns for name in (runs.SFT, runs.GRPO)}
    assert before == after
    first, second = claim.rows([own])
    means = {name: first.measured[name]["mean"] for name in ("one rewrite", "best of rewrites")}
    assert means["best of rewrites"] >= means["one rewrite"]
    assert second.ci95 is not None


def test_the_best_shows_most_and_the_first_wins_a_tie():
    assert best([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]) == [1.0, 1.0]
    assert best([[1.0, 0.0], [0.0, 1.0]]) == [1.0, 0.0]


def test_thoughts_that_are_given_are_gone_on_from(measured):
    _, folder = measured
    rewriter = folder.parents[1] / "rewriters" / "seed-0" / runs.SFT
    prompts, thoughts = ["a red ball", "a plum wedge, please"], ["red", "plum is purple"]
    outputs = runs.with_thoughts(rewriter, prompts, thoughts)
    assert [text.partition("</think>")[0] for text in outputs] == ["<think>red", "<think>plum is purple"]
