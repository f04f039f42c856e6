"""The short runs of trainers, tiny: what they share, what is measured, and verdicts by hand."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from rewards.latent import saved
from rewards.latent.untrained import from_pipeline
from rewards.scorers.image_stats import saturation
from scripts.experiments import labelled_pairs, trainers
from scripts.experiments import preferences as without_pairs
from scripts.experiments.trainers import BASE, CLAIMS, SETTINGS, TRAINED, ImageRun, JudgeRun, ScorerRun
from scripts.experiments.training import FILES, RECIPES, finish
from t2ialign.evaluation.manifest_scores import read_image
from t2ialign.evaluation.provenance import source_hash
from t2ialign.io import jsonl, manifest
from t2ialign.models.load import load_policy
from t2ialign.toy import preferences
from t2ialign.toy.captions import is_held_out
from t2ialign.toy.suite import GUIDANCE, STEPS

pytestmark = pytest.mark.rest

FEW = {"max_steps": 1, "evaluate_every": 1, "checkpoint_every": 1, "batch_size": 2, "lr_warmup": 0}
SAMPLING = {"lora_rank": 2, "num_inference_steps": 2}
CHANGES = {
    "dpo": {"lora_rank": 2},
    "lrm": {"holdout": 0},
    "reward": {"holdout": 0},
    "dense": {**SAMPLING, "collect_prompts": 2, "rollouts": 2, "keep": 2, "timesteps": 1},
    "backprop": {**SAMPLING, "k": 1},
    "grpo": {**SAMPLING, "window": 0, "groups": 2, "group_size": 2, "updates": 1, "train_timesteps": 1},
    "lpo": {**SAMPLING, "collect_prompts": 2, "t_max": 999, "threshold_low": 0, "threshold_high": 0},
}


def small(claim):
    claim.seeds, claim.captions, claim.unseen, claim.samples = (0,), 6, 6, 2
    claim.renders, claim.near_misses = 3, 2
    claim.heldout, claim.images = 3, 2
    claim.sampler = {**labelled_pairs.SAMPLER, "num_inference_steps": 2}
    claim.training = {**claim.training, **FEW, **CHANGES[claim.method]}
    claim.judge_training = {**SETTINGS["lrm"], **FEW, **CHANGES["lrm"]}
    return claim


RUNS = {
    "dpo": ImageRun("dpo"),
    "lrm": JudgeRun("lrm"),
    "reward": ScorerRun("reward"),
    "taste": ScorerRun("reward", taste="saturation"),
    "dense": ImageRun("dense"),
    "backprop": ImageRun("backprop"),
    "latent": ImageRun("backprop", latent=True),
    "lpo": ImageRun("lpo"),
    "grpo": ImageRun("grpo"),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """Every run but the rewriter's; each second sample passes, so that there are pairs after two steps."""
    root = tmp_path_factory.mktemp("prove")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            preferences,
            "judge_samples",
            lambda folder: [i % 2 == 0 for i, _ in enumerate(manifest.read(folder))],
        )
        for name, claim in RUNS.items():
            small(claim).measure(root / name / "seed-0", 0)
    return root


def result(root: Path, name: str) -> dict:
    return json.loads((root / name / "seed-0" / trainers.ShortRun.result).read_text())


def test_image_runs_are_measured_on_the_same_held_out_images(measured):
    images = [result(measured, name) for name in ("dpo", "dense", "backprop", "latent", "lpo", "grpo")]
    assert {tuple(one["prompts"]) for one in images} == {tuple(images[0]["prompts"])}
    assert {tuple(one[BASE]) for one in images} == {tuple(images[0][BASE])}
    assert len(images[0]["prompts"]) == 6 and all(map(is_held_out, images[0]["prompts"]))
    assert all(len(one[TRAINED]) == 6 and set(one[TRAINED]) <= {0.0, 1.0} for one in images)


def test_a_taste_prefers_what_its_reward_scores_highest(measured):
    """Of each caption's two samples the more saturated one; the pairs are those of held-out captions."""
    (folder,) = measured.glob("shared/*/seed-0")
    rows = jsonl.read(folder / "unseen-saturation.jsonl")
    assert sorted(row["prompt"] for row in rows) == sorted({row["prompt"] for row in rows})
    for row in rows:
        scores = {
            side: saturation(read_image(folder / row[side])[None]).item() for side in ("chosen", "rejected")
        }
        assert scores["chosen"] >= scores["rejected"]
    assert result(measured, "taste")["prompts"] == [row["prompt"] for row in rows]


def test_scorers_are_measured_on_pairs_that_training_never_saw(measured):
    scorer, judge = result(measured, "reward"), result(measured, "lrm")
    assert scorer["prompts"] == judge["prompts"] and all(map(is_held_out, judge["prompts"]))
    assert set(judge[BASE]) == {0.5} and set(scorer[BASE]) | set(judge[TRAINED]) <= {0.0, 1.0}


def test_the_latent_reward_learns_from_pairs_of_samples_and_of_renders(measured):
    shared = measured / trainers.SHARED / source_hash() / "seed-0"
    sampled, judged = (jsonl.read(shared / name) for name in ("samples.jsonl", "judged.jsonl"))
    rendered = jsonl.read(shared / "renders.jsonl")
    assert judged == [*sampled, *rendered] and 3 <= len(rendered) <= 6
    assert not any(is_held_out(row["prompt"]) for row in judged)


def test_what_runs_share_is_made_once_and_nothing_is_trained_twice(measured):
    shared = measured / trainers.SHARED / source_hash() / "seed-0"
    once = [shared / "samples.jsonl", shared / "lrm" / "latent_reward.safetensors", shared / "base.json"]
    files = [*once, *measured.glob("*/seed-0/run/pytorch_lora_weights.safetensors")]
    assert len(files) == 9 and not (measured / "lrm" / "seed-0" / "run").exists()
    before = [file.stat().st_mtime_ns for file in files]
    for name in RUNS:
        again = measured / name / "seed-0" / trainers.ShortRun.result
        text = again.read_text()
        again.unlink()
        RUNS[name].measure(again.parent, 0)
        assert again.read_text() == text
    assert [file.stat().st_mtime_ns for file in files] == before


def test_lpo_and_the_latent_run_are_judged_by_the_shared_latent_reward(measured):
    configs = {
        name: yaml.safe_load((measured / name / "seed-0/run/config.yaml").read_text())
        for name in RUNS
        if name != "lrm"
    }
    assert configs["lpo"]["reward_options"]["path"].endswith("seed-0/lrm")
    assert configs["latent"]["reward_options"] == configs["lpo"]["reward_options"]
    assert configs["latent"]["reward"] == "latent" and configs["backprop"]["reward"] == "toy-clip"
    different = {key for key, value in configs["latent"].items() if value != configs["backprop"][key]}
    assert different == {"reward", "reward_options", "output"}


@pytest.mark.parametrize("method", SETTINGS)
def test_settings_are_those_of_the_recipe(method):
    recipe = yaml.safe_load((RECIPES / f"{method}_toy.yaml").read_text())
    left_out = {key for key in recipe if key in FILES or key == "heldout_prompts" or "monitor" in key}
    expected = {key: value for key, value in recipe.items() if key not in left_out}
    assert {key: SETTINGS[method][key] for key in expected} == expected
    assert set(SETTINGS[method]) == {*expected, "trackers"}


def test_every_trainer_of_a_toy_recipe_has_a_run():
    methods = {claim.method for claim in CLAIMS if isinstance(claim, trainers.RecipeRun)}
    methods |= {method for claim in without_pairs.CLAIMS for method, _ in claim.sides.values()}
    assert {f"{method}_toy" for method in methods} == {file.stem for file in RECIPES.glob("*_toy.yaml")}
    sampler = {"guidance_scale": GUIDANCE, "num_inference_steps": STEPS}
    assert sampler.items() <= ImageRun("lpo").sampler.items() <= labelled_pairs.SAMPLER.items()


def test_a_run_holds_if_the_interval_lies_above_zero(tmp_path):
    captions = ["a red circle", "two blue squares", "a red circle and a blue square"] * 4
    prompts = [caption for caption in dict.fromkeys(captions) for _ in range(4)]
    for trained, holds in (([1.0] * 12, True), ([0.0, 1.0] * 6, True), ([0.0] * 12, False)):
        (tmp_path / trainers.ShortRun.result).write_text(
            json.dumps({"prompts": prompts, BASE: [0.0] * 12, TRAINED: trained})
        )
        claim = ImageRun("dense")
        (row,) = claim.rows([tmp_path])
        assert row.holds is holds and row.measured["settings"] == {**SETTINGS["dense"], "trackers": []}
        assert row.measured["difference"]["mean"] == sum(trained) / 12
        assert set(row.measured["by_category"]) == {"attribute", "count", "pair"}
        assert claim.figures([tmp_path])[0].body.count("<rect") >= 8
    worse = {"prompts": prompts, BASE: [0.0, 1.0] * 6, TRAINED: [1.0, 0.0, 1.0, 0.0] + [0.0, 1.0] * 4}
    (tmp_path / trainers.ShortRun.result).write_text(json.dumps(worse))
    (row,) = claim.rows([tmp_path])
    assert not row.holds


def test_a_judge_orders_pairs_by_the_scores_of_their_latents_almost_without_noise(measured):
    """By hand, without noise: its verdicts are those of the claim wherever the margin is not tiny."""
    shared = measured / trainers.SHARED / source_hash() / "seed-0"
    policy, judge, rows = load_policy("toy"), saved.build(shared / "lrm"), jsonl.read(shared / "unseen.jsonl")
    prompts, scores = [row["prompt"] for row in rows], []
    for side in ("chosen", "rejected"):
        images = torch.stack([read_image(shared / row[side]) for row in rows])
        with torch.no_grad():
            scores.append(judge(policy.encode_images(images)[0], torch.ones(len(rows)).long(), prompts))
    margins = (scores[0] - scores[1]).tolist()
    verdicts = result(measured, "lrm")[TRAINED]
    clear = [i for i, margin in enumerate(margins) if abs(margin) > 0.1 * max(map(abs, margins))]
    assert len(verdicts) == len(margins) and clear
    assert [verdicts[i] for i in clear] == [float(margins[i] > 0) for i in clear]


def test_a_run_on_the_latent_reward_that_was_cut_off_goes_on(tmp_path):
    values = {**SETTINGS["backprop"], **FEW, **CHANGES["backprop"], "prompts": "a red circle"}
    saved.save(from_pipeline("toy", seed=1), tmp_path / "lrm")
    values |= {"reward": "latent", "reward_options": {"path": str(tmp_path / "lrm")}}
    for steps in (1, 2):
        finish("backprop", {**values, "max_steps": steps}, tmp_path / "run", 0)
        steps_on_file = [row["step"] for row in jsonl.read(tmp_path / "run" / "metrics.jsonl") if row["step"]]
        assert steps_on_file == list(range(1, steps + 1))
        (tmp_path / "run" / "README.md").unlink()
