"""The claims on the toy rewriter, made small: what is measured, what is judged, what decides."""

import json

import pytest

from rewards.keypoints.oracle import toy_points
from rewards.toy.world import COLOURS, SHAPES
from scripts.experiments import rewriter_runs as runs
from scripts.experiments.rewrite import (
    CAPTION,
    GRPO,
    PLAIN,
    PROMPT,
    RESULT,
    REWRITES,
    SEEDS,
    SFT,
    SHUFFLED,
    BestOfClaim,
    RewritingClaim,
    _is_tempting,
    best,
)
from scripts.experiments.rewriter_runs import JudgedImages
from scripts.experiments.trainers import RewriterRun
from scripts.experiments.training import finish_rewriter
from t2ialign.evaluation.provenance import source_hash
from t2ialign.toy.phrasings import draw_phrasings
from t2ialign.toy.rewriter import build_model, build_tokenizer, output_of

pytestmark = pytest.mark.rest

pytest.importorskip("trl")

SMALL = {
    "sizes": runs.Sizes(rows=40, prompts=8),
    "sft": {**runs.SFT_SETTINGS, "max_steps": 2, "batch_size": 4, "lr_warmup": 0},
    "grpo": {**runs.GRPO_SETTINGS, "max_steps": 1, "batch_size": 4, "group": 2, "num_inference_steps": 2},
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
    asked = claim.phrasings(0)
    assert all(phrasing.held_out for phrasing in asked)
    assert found["texts"][PROMPT] == [phrasing.prompt for phrasing in asked]
    for name, each in found["matches"].items():
        for caption, own in zip(found["captions"], each, strict=True):
            assert len(own) == len(toy_points(caption)), name
    images = JudgedImages(found["captions"], first_seed=4_000_000)
    assert images.matches(found["texts"][CAPTION]) == found["matches"][CAPTION]


def test_rows_and_figures(measured):
    claim, folder = measured
    steps, thought, shuffled = claim.rows([folder])
    accuracy = steps.measured["oracle_accuracy"]
    assert steps.measured["same_text_as_the_caption"][CAPTION] == 1.0
    assert not steps.holds  # nothing was learnt in three updates
    assert 0 <= accuracy[CAPTION]["mean"] <= 1 and not thought.holds and not shuffled.holds
    table = claim.figures([folder])[1].body
    assert table.count("<tr>") == 2 + len(steps.measured["by_key_point"]), "heads, all, and each kind"
    assert table.count("<td") == len(accuracy) * (1 + len(steps.measured["by_key_point"]))
    assert f">{100 * accuracy[CAPTION]['mean']:.1f}</td>" in table


def test_the_verdict_follows_the_intervals(measured, tmp_path):
    claim, folder = measured
    captions = [
        f"a {size} {colour} {shape}" for size in ("small", "large") for colour in COLOURS for shape in SHAPES
    ]
    found = json.loads((folder / RESULT).read_text())
    found |= {"captions": captions, "texts": dict.fromkeys(found["texts"], captions)}
    found["tempting"] = [place % 2 == 0 for place in range(len(captions))]

    def shown(share):
        """The thing always, that there is nothing else in this share of the images."""
        return [[1.0, float(place < share * len(captions))] for place in range(len(captions))]

    found["matches"] = {PROMPT: shown(0), SFT: shown(0.3), PLAIN: shown(0.3), CAPTION: shown(1)}
    for grpo, shuffled, verdict in ((0.8, 0.1, True), (0.4, 0.4, False)):
        found["matches"] |= {GRPO: shown(grpo), SHUFFLED: shown(shuffled)}
        (tmp_path / RESULT).write_text(json.dumps(found))
        steps, thought, other = claim.rows([tmp_path])
        assert steps.holds is verdict and other.holds is verdict and not thought.holds
        assert steps.measured["gain_of_grpo_by_seed"][0]["mean"] == pytest.approx(
            steps.measured["gain_of_grpo"]["mean"]
        )
        halves = (steps.measured[name][GRPO]["mean"] for name in ("where_the_teacher_misreads", "elsewhere"))
        assert sum(halves) / 2 == pytest.approx(steps.measured["oracle_accuracy"][GRPO]["mean"])


def test_the_teacher_is_tempted_by_its_habits_alone():
    drawn = draw_phrasings(200, 5, held_out=True)
    misread = draw_phrasings(200, 5, held_out=True, misread=1.0)
    for plain, taken in zip(drawn, misread, strict=True):
        if plain.prompt == taken.prompt and plain.caption != taken.caption:
            assert _is_tempting(plain), plain.prompt
    assert 20 < sum(map(_is_tempting, drawn)) < 180


def test_the_rewriters_are_made_once(measured):
    _, folder = measured
    shared = folder.parents[1] / "rewriters" / source_hash() / "seed-0"
    before = {
        name: (shared / name / "model.safetensors").stat().st_mtime_ns for name in (runs.SFT, runs.GRPO)
    }
    claim = small(BestOfClaim())
    claim.n, claim.heldout = 2, 4
    own = folder.parents[1] / "claim-2" / "seed-0"
    claim.measure(own, 0)
    after = {name: (shared / name / "model.safetensors").stat().st_mtime_ns for name in (runs.SFT, runs.GRPO)}
    assert before == after
    found = json.loads((own / RESULT).read_text())
    assert {len(texts) for texts in found["texts"]} == {4} and len(found["texts"]) == 2
    assert found["matches"][REWRITES][0] == found["matches"][SEEDS][0], "the first of both is one image"


def test_the_short_run_compares_prompts_with_rewrites(measured):
    _, folder = measured
    claim, place = small(RewriterRun()), folder.parents[1] / "claim-3" / "seed-0"
    claim.measure(place, 0)
    result = json.loads((place / claim.result).read_text())
    assert result["prompts"] == [phrasing.caption for phrasing in claim.phrasings(0)]
    assert all(set(result[side]) <= {0.0, 1.0} and len(result[side]) == 6 for side in ("base", "trained"))
    (row,) = claim.rows([place])
    assert not row.holds and set(row.measured["settings"]) == {"sft", "grpo"}


def test_the_best_of_rewrites_is_judged_against_seeds_too(tmp_path):
    captions = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    wrong, right = [[0.0, 1.0]] * len(captions), [[1.0, 1.0]] * len(captions)
    claim = small(BestOfClaim())
    for seeds, verdicts in (([wrong, wrong], (True, True)), ([wrong, right], (True, False))):
        matches = {REWRITES: [wrong, right], SEEDS: seeds}
        (tmp_path / RESULT).write_text(json.dumps({"captions": captions, "matches": matches}))
        first, second = claim.rows([tmp_path])
        assert (first.holds, second.holds) == verdicts
        assert first.measured["one rewrite"]["mean"] == 0 and first.measured["gain"]["mean"] == 1


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    rows, prompts = draw_phrasings(20, 0, held_out=False), draw_phrasings(4, 1, held_out=False)
    runs.write_rows(tmp_path, rows, prompts)
    tokenizer = build_tokenizer([text for row in rows for text in (row.prompt, output_of(row))])
    tokenizer.save_pretrained(tmp_path / runs.RAW)
    build_model(tokenizer, 0).save_pretrained(tmp_path / runs.RAW)
    values = {**SMALL["sft"], "data": str(tmp_path / runs.ROWS), "model": str(tmp_path / runs.RAW)}
    output = tmp_path / runs.SFT
    output.mkdir()
    (output / "metrics.jsonl").write_text('{"step": 1, "loss": 5.0}\n')
    (output / "config.yaml").write_text("model: half\n")
    finish_rewriter("rewrite_sft", values, output, 0)
    assert (output / "README.md").is_file() and "half" not in (output / "config.yaml").read_text()


def test_the_best_shows_most_and_the_first_wins_a_tie():
    assert best([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]) == [1.0, 1.0]
    assert best([[1.0, 0.0], [0.0, 1.0]]) == [1.0, 0.0]


def test_thoughts_that_are_given_are_gone_on_from(measured):
    _, folder = measured
    rewriter = folder.parents[1] / "rewriters" / source_hash() / "seed-0" / runs.SFT
    prompts, thoughts = ["a red ball", "a plum wedge, please"], ["red", "plum is purple"]
    outputs = runs.with_thoughts(rewriter, prompts, thoughts)
    assert [text.partition("</think>")[0] for text in outputs] == ["<think>red", "<think>plum is purple"]
