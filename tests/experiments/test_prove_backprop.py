"""The claims on reward back-propagation, small: what is measured, resumed and judged."""

import json
from typing import ClassVar

import pytest

from scripts.experiments.backprop import CLAIMS, OverOptimisationClaim, PresetClaim, TextNormRewardClaim
from scripts.experiments.gradient import SLOPES, GradientClaim
from scripts.experiments.lora_mixing import SCORES, MixingClaim
from scripts.experiments.memory import PEAKS, MemoryClaim, in_new_process
from scripts.experiments.training import ORACLE, TRAINING
from t2ialign.io import atomic
from t2ialign.methods.backprop.presets import PRESETS
from tests.experiments import judged_runs

pytestmark = pytest.mark.rest


def test_the_gradient_of_every_preset_is_a_finite_difference(tmp_path):
    claim, folder = GradientClaim(), tmp_path / "seed-0"
    claim.num_inference_steps = 4
    claim.measure(folder, 0)
    before = (folder / SLOPES).read_text()
    claim.measure(folder, 0)  # nothing is left to do
    assert (folder / SLOPES).read_text() == before
    (row,) = claim.rows([folder])
    assert row.holds and set(row.measured["largest_relative_error"]) == set(PRESETS)


def test_one_wrong_gradient_fails_the_claim(tmp_path):
    folder = tmp_path / "seed-0"
    folder.mkdir()
    lines = [{"preset": name, "slope": 1.0, "difference": 1.0} for name in PRESETS]
    lines[3]["slope"] = 1.001
    (folder / SLOPES).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (row,) = GradientClaim().rows([folder])
    assert not row.holds


class Small(MemoryClaim):
    rows_of: ClassVar[dict[str, int]] = {"recomputed": 4, "naive": 4}
    steps = (10, 50)


def test_peak_memory_is_that_of_the_step_and_recomputing_saves_it():
    naive, kept = (in_new_process(6, 4, recompute, 0) for recompute in (False, True))
    assert naive["latent_bytes"] == kept["latent_bytes"] == 4 * 256 * 4
    assert 0 < kept["bytes"] < 0.7 * naive["bytes"]
    with pytest.raises(ValueError, match="got exit code 1 from the measured process: "):
        in_new_process(6, 4, True, "not a seed")


def test_growth_is_judged_beyond_the_latents(tmp_path):
    rows = [
        {"way": way, "steps": steps, "bytes": size, "latent_bytes": 1_000, "device": "cpu"}
        for way, few, many in (("recomputed", 1_000_000, 1_140_000), ("naive", 1_000_000, 5_000_000))
        for steps, size in ((10, few), (50, many))
    ]
    folder = tmp_path / "seed-0"
    folder.mkdir()
    (folder / PEAKS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (row,) = Small().rows([folder])
    assert row.holds  # 140,000 - 40 x 1,000 is 10 % of a million
    assert row.measured["growth_by_seed"] == {"recomputed": [0.1], "naive": [3.96]}
    rows[1]["bytes"] += 2
    (folder / PEAKS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert not Small().rows([folder])[0].holds
    assert "svg" in Small().figures([folder])[0].body


TINY = {
    **TRAINING,
    **{
        "num_inference_steps": 2,
        "k": 1,
        "lora_rank": 2,
        "batch_size": 2,
        "max_steps": 2,
        "evaluate_every": 1,
    },
    **{"monitor_images": 2, "monitor_steps": 2},
}


def test_over_optimisation_is_measured_resumed_and_judged(tmp_path):
    claim, folder = OverOptimisationClaim(), tmp_path / "seed-0"
    claim.training, claim.train_prompts, claim.heldout_prompts, claim.seeds = TINY, 4, 3, (0,)
    claim.measure(folder, 0)
    before = (folder / ORACLE).stat().st_mtime_ns
    claim.measure(folder, 0)
    assert (folder / ORACLE).stat().st_mtime_ns == before
    passed = json.loads((folder / ORACLE).read_text())
    assert {step: len(values) for step, values in passed.items()} == {"0": 6, "1": 6, "2": 6}
    happens, in_time = claim.rows([folder])
    assert not happens.holds and not in_time.holds  # two updates fool nobody
    (seed,) = happens.measured["by_seed"]
    assert set(seed["oracle"]) == {"0", "1", "2"} and seed["peak"] in (0, 1, 2)
    assert len(claim.figures([folder])) == 2


@pytest.mark.parametrize("fired, holds", [(1, True), (3, False)])
def test_the_monitor_has_to_fire_in_time(tmp_path, monkeypatch, fired, holds):
    """Accuracy falls at step 2 for good; held-out scores at step 1 or only at step 3."""
    claim, folder = OverOptimisationClaim(), tmp_path / "seed-0"
    judged_runs.write(
        folder,
        {step: [float(i % 4 > (step >= 2)) for i in range(40)] for step in range(4)},
        lambda step, i: {"trained": step + i / 100, "toy-clip-b": i / 100 - (step >= fired)},
    )
    happens, in_time = claim.rows([folder])
    (seed,), (seen,) = happens.measured["by_seed"], in_time.measured["by_seed"]
    assert (seed["peak"], seen["first_significantly_below"]) == (0, 2) and happens.holds
    assert seen["fired"]["step"] == fired and in_time.holds is holds


def test_textnorm_is_climbed_beside_the_raw_score(tmp_path):
    claim, folder = TextNormRewardClaim(), tmp_path / "seed-0"
    claim.training, claim.train_prompts, claim.heldout_prompts = TINY, 4, 3
    claim.max_steps, claim.seeds = 1, (0,)
    claim.measure(folder, 0)
    (row,) = claim.rows([folder])
    assert row.measured["raw"]["count"] == row.measured["textnorm"]["count"] == 6 and not row.holds
    assert "svg" in claim.figures([folder])[0].body


def test_mixing_two_loras_is_rendered_at_every_share(tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.experiments.lora_mixing.TRAINING", TINY)
    claim, folder = MixingClaim(), tmp_path / "seed-0"
    claim.train_prompts, claim.heldout_prompts, claim.max_steps, claim.seeds = 4, 3, 1, (0,)
    claim.measure(folder, 0)
    (row,) = claim.rows([folder])
    assert set(row.measured["by_alpha"]["saturation"]) == {"0", "0.25", "0.5", "0.75", "1"}
    found = json.loads((folder / SCORES).read_text())
    for alpha, column in found["scores"].items():  # rising and falling, as if each LoRA had done its work
        column["toy-clip"] = [float(alpha) + i / 10 for i in range(3)]
        column["saturation"] = [1 - float(alpha) + i / 10 for i in range(3)]
    atomic.write_json(folder / SCORES, found)
    assert claim.rows([folder])[0].holds
    found["scores"]["0.5"]["saturation"] = [0.9, 1.0, 1.1]
    atomic.write_json(folder / SCORES, found)
    assert not claim.rows([folder])[0].holds


@pytest.mark.parametrize("preset", ["draft-lv", "refl"])
def test_a_preset_is_a_line_of_the_table(tmp_path, preset):
    claim, folder = PresetClaim(preset), tmp_path / "seed-0"
    claim.training, claim.train_prompts, claim.heldout_prompts = {**TINY, "num_inference_steps": 3}, 4, 3
    claim.measure(folder, 0)
    (row,) = claim.rows([folder])
    assert row.measured["images"] == 4 and len(row.measured["reward"]) == 2
    assert row.measured["seconds_of_updates"] > 0
    passed = {"0": [0.0] * 6, "1": [0.0] * 5 + [1.0], "2": [0.0] * 6}
    atomic.write_json(folder / ORACLE, passed)
    (row,) = claim.rows([folder])
    assert row.holds and row.measured["images_until_gain"] == 2


def test_the_claims_have_texts_of_their_own():
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS) >= 10
