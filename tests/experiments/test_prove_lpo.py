"""The claims on latent rewards and step-level training, tiny: stages, pairs, resume, and verdicts by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from scripts.experiments import labelled_pairs
from scripts.experiments.latent_reward import MARGINS, TIMES, LatentRewardClaim
from scripts.experiments.lpo import (
    ABLATIONS,
    ACCURACY,
    SECONDS,
    SHARED,
    AblationClaim,
    StepwiseClaim,
    _best_within,
    _speed_up,
)
from scripts.experiments.stepwise import Stages
from t2ialign.evaluation.provenance import source_hash
from t2ialign.io import atomic, jsonl, manifest
from t2ialign.toy.suite import GUIDANCE

pytestmark = pytest.mark.rest

CAPTIONS = ["a red circle", "two blue squares", "a red circle above a blue square"]
TINY = {
    "captions": 10,
    "samples": 6,
    "renders": 2,
    "near_misses": 2,
}
TINY_SAMPLER = {"num_inference_steps": 2, "guidance_scale": 2.0, "batch_size": 32}
FEW = {"max_steps": 1, "evaluate_every": 1, "checkpoint_every": 1, "batch_size": 2}


def test_a_stage_runs_once_and_its_seconds_add_up(tmp_path):
    calls: list[str] = []
    for _ in range(2):
        stages = Stages(tmp_path / "seconds.json")
        for name in ("lpo-1", "lpo-2", "dpo-1"):
            stages.run(name, lambda name=name: calls.append(name))
    assert calls == ["lpo-1", "lpo-2", "dpo-1"]
    stages.seconds |= {"lpo-1": 3.0, "lpo-2": 4.0}
    assert stages.until("lpo") == [3.0, 7.0] and len(stages.until("dpo")) == 1
    with pytest.raises(ZeroDivisionError):
        stages.run("fails", lambda: 1 / 0)
    assert "fails" not in Stages(tmp_path / "seconds.json").seconds


def test_rendered_pairs_are_right_and_wrong_by_the_oracle(tmp_path):
    import torch

    import rewards
    from t2ialign.evaluation.manifest_scores import read_image

    file = labelled_pairs.rendered(tmp_path / "renders", CAPTIONS, 2, seed=3)
    rows, oracle = jsonl.read(file), rewards.load("toy-oracle")
    assert len(rows) == 6 and {row["prompt"] for row in rows} == set(CAPTIONS)
    prompts = [row["prompt"] for row in rows]
    for side, expected in (("chosen", 1.0), ("rejected", 0.0)):
        images = torch.stack([read_image(tmp_path / row[side]) for row in rows])
        assert set(oracle(images, prompts).tolist()) == {expected}


TINY_ROUNDS = {
    "num_inference_steps": 2,
    "collect_prompts": 2,
    "t_max": 999,
    "threshold_low": 0,
    "threshold_high": 0,
}


@pytest.fixture
def latent_claim():
    claim = LatentRewardClaim()
    claim.seeds, claim.samples, claim.near_misses = (0,), 6, (2, 2)
    claim.sample_captions, claim.render_captions = (10, 10), (3, 3)
    claim.options = TINY_SAMPLER
    claim.training = {**claim.training, **FEW, "holdout": 0, "heldout_timesteps": (1,)}
    claim.fine_tuning = {**claim.fine_tuning, **FEW, "holdout": 0}
    return claim


def test_a_latent_reward_is_trained_and_measured_at_every_timestep(latent_claim, tmp_path, monkeypatch):
    from scripts.experiments import latent_reward

    always(monkeypatch)
    folder = tmp_path / "seed-0"
    latent_claim.measure(folder, 0)
    found = json.loads((folder / MARGINS).read_text())
    count = len(found["prompts"])
    assert set(found["margins"]) == {*(f"t{t}" for t in TIMES), "clip@1", f"clip@{GUIDANCE:g}"}
    assert all(len(values) == count for values in found["margins"].values())
    assert set(found["kinds"]) == {"test-samples", "test-renders"}
    monkeypatch.setattr(latent_reward, "_margins", lambda *_: pytest.fail("measured again"))
    latent_claim.measure(folder, 0)
    rows = latent_claim.rows([folder])
    assert len(rows) == 4 and set(rows[0].measured["accuracy_by_timestep"]) == {str(t) for t in TIMES}
    assert len(latent_claim.figures([folder])) == 1


def always(monkeypatch) -> None:
    """Samples of two steps rarely pass: every second one does here, so that there are pairs."""
    from t2ialign.toy import preferences

    monkeypatch.setattr(
        preferences, "judge_samples", lambda folder: [i % 2 == 0 for i, _ in enumerate(manifest.read(folder))]
    )


def test_the_verdicts_on_a_latent_reward(tmp_path):
    """Right on 9 of 10 pairs at t = 1, on fewer and fewer, on 7 at 751; the CLIP is right on 6."""
    right = {t: 9 - i * 3 // 10 for i, t in enumerate(TIMES)}
    claim = LatentRewardClaim()
    claim.seeds = (0,)
    prompts = [f"caption {i}" for i in range(200)]

    def margins(of_ten: int) -> list[float]:
        return [1.0 if i % 10 < of_ten else -1.0 for i in range(200)]

    found = {f"t{t}": margins(count) for t, count in right.items()}
    found |= {"clip@1": margins(6), "clip@4": margins(5)}
    tmp_path.joinpath("seed-0").mkdir()
    kinds = ["test-samples", "test-renders"] * 100
    atomic.write_json(tmp_path / "seed-0" / MARGINS, {"prompts": prompts, "kinds": kinds, "margins": found})
    rows = claim.rows([tmp_path / "seed-0"])
    assert [row.holds for row in rows] == [True, True, True, True]
    assert rows[3].measured["differences"]["clip@1"]["mean"] == pytest.approx((right[501] - 6) / 10)


@pytest.fixture
def gain_claim():
    claim = StepwiseClaim()
    claim.seeds, claim.heldout, claim.images = (0,), 2, 1
    claim.pairs, claim.options = TINY, TINY_SAMPLER
    claim.judges = {
        name: (trainer, {**settings, **FEW, "holdout": 0})
        for name, (trainer, settings) in claim.judges.items()
    }
    few = {"batch_size": 2, "lora_rank": 2}
    step = {**few, **TINY_ROUNDS}
    claim.methods = {
        name: replace(
            method, settings={**method.settings, **(few if name == "dpo" else step)}, part=1, parts=2
        )
        for name, method in claim.methods.items()
    }
    return claim


def test_the_methods_are_trained_in_parts_and_timed(gain_claim, tmp_path, monkeypatch):
    always(monkeypatch)
    folder = tmp_path / "seed-0"
    gain_claim.measure(folder, 0)
    seconds = json.loads((folder / SECONDS).read_text())
    assert list(seconds) == ["pairs", "lrm", "clip", "lpo-1", "lpo-2", "spo-1", "spo-2", "dpo-1", "dpo-2"]
    found = json.loads((folder / ACCURACY).read_text())
    assert len(found["prompts"]) == 2 and {len(v) for v in found["passed"].values()} == {1, 2}
    curves = gain_claim.rows([folder])[0].measured["curves_by_seed"][0]
    start = seconds["pairs"] + seconds["lrm"]
    assert curves["lpo"][1][0] == pytest.approx(start + seconds["lpo-1"])
    assert curves["dpo"][2][0] == pytest.approx(seconds["pairs"] + seconds["dpo-1"] + seconds["dpo-2"])
    assert len(gain_claim.figures([folder])) == 1


def test_ablations_share_a_judge_and_differ_in_one_thing(tmp_path, monkeypatch):
    always(monkeypatch)
    first, second = AblationClaim("as it is"), AblationClaim("beta 15")
    made = set[int]()
    for number, claim in enumerate((first, second)):
        claim.pairs, claim.options, claim.heldout, claim.images = TINY, TINY_SAMPLER, 2, 1
        claim.judge = {**claim.judge, **FEW, "holdout": 0}
        few = {"batch_size": 2, "lora_rank": 2, "max_steps": 1}
        claim.training = {**claim.training, **few, **TINY_ROUNDS}
        claim.measure(tmp_path / f"claim-{number}" / "seed-0", 0)
        made.add((tmp_path / SHARED / source_hash() / "lrm" / "latent_reward.safetensors").stat().st_mtime_ns)
    assert len(made) == 1, "the judge was trained again"
    (row,) = second.rows([tmp_path / "claim-1" / "seed-0"])
    assert row.measured["settings"] == {"beta": 15.0} and row.measured["valid_rows_a_round"] > 0
    runs = [
        yaml.safe_load(file.read_text()) for file in sorted(tmp_path.glob("claim-*/seed-0/run/config.yaml"))
    ]
    different = {name for name in runs[0] if runs[0][name] != runs[1][name]}
    assert different == {"beta", "output"}


def test_every_ablation_is_a_setting_of_the_trainer(tmp_path):
    from t2ialign.methods.lpo.trainer import Config

    for name, changed in ABLATIONS.items():
        training = AblationClaim(name).training
        config = Config(**{**training, **changed, "prompts": "a", "output": tmp_path})
        assert all(getattr(config, key) == value for key, value in changed.items())


def test_equal_time_and_speed_up_by_hand():
    dpo = [(0.0, 0.2), (100.0, 0.25), (200.0, 0.35), (300.0, 0.3)]
    assert [_best_within(dpo, seconds) for seconds in (50, 150, 250, 999)] == [0, 0, 1, 1]
    lpo = [(0.0, 0.2), (80.0, 0.3), (120.0, 0.4)]
    assert _speed_up(lpo, dpo) == pytest.approx(200 / 100)  # .35 is half-way from 80 to 120 seconds
    assert _speed_up([(0.0, 0.2), (80.0, 0.3)], dpo) is None


def test_folders_of_a_claim_may_move(tmp_path):
    file = labelled_pairs.rendered(tmp_path / "renders", CAPTIONS[:1], 1, seed=0)
    both = labelled_pairs.joined(tmp_path / "all.jsonl", [file, file])
    assert [Path(row["chosen"]).is_absolute() for row in jsonl.read(both)] == [False, False]
