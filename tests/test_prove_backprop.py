"""The claims on reward back-propagation, small: what is measured, resumed and judged."""

import json
from typing import ClassVar

import pytest

from t2ialign.proofs.gradient import FOUND, GradientClaim
from t2ialign.proofs.memory import PEAKS, MemoryClaim, in_new_process
from t2ialign.trainers.presets import PRESETS


def test_the_gradient_of_every_preset_is_a_finite_difference(tmp_path):
    claim, folder = GradientClaim(), tmp_path / "seed-0"
    claim.num_steps = 4
    claim.measure(folder, 0)
    before = (folder / FOUND).read_text()
    claim.measure(folder, 0)  # nothing is left to do
    assert (folder / FOUND).read_text() == before
    (row,) = claim.rows([folder])
    assert row.holds and set(row.measured["largest_relative_error"]) == set(PRESETS)


def test_one_wrong_gradient_fails_the_claim(tmp_path):
    folder = tmp_path / "seed-0"
    folder.mkdir()
    lines = [{"preset": name, "slope": 1.0, "difference": 1.0} for name in PRESETS]
    lines[3]["slope"] = 1.001
    (folder / FOUND).write_text("".join(json.dumps(line) + "\n" for line in lines))
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
