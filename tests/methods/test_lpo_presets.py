"""The recipes of LPO and SPO: a family's own thresholds, by the authors' numbers, and what is set wins."""

from typing import Any

import pytest
import torch

from t2ialign import config
from t2ialign.methods.lpo import trainer as lpo
from t2ialign.training import checkpoint

BRIGHT = "tests.training.brightness"
LPO_15 = {"threshold_low": 0.35, "threshold_high": 0.5, "lora_rank": 4, "lr": 6e-5, "batch_size": 10}
LPO_XL = {"threshold_low": 0.45, "threshold_high": 0.6, "lora_rank": 64, "lr": 1e-5, "batch_size": 4}
SPO_15 = {"threshold_low": 0.3, "threshold_high": 0.3, "lora_rank": 4, "lr": 6e-5, "accumulate": 1}
SPO_XL = {"threshold_low": 0.4, "threshold_high": 0.4, "lora_rank": 64, "lr": 1e-5, "accumulate": 2}


@pytest.mark.parametrize(
    ("preset", "family", "published"),
    [
        ("lpo", "sd1", {**LPO_15, "collect_prompts": 20}),
        ("lpo", "sd2", {**LPO_15, "collect_prompts": 20}),
        ("lpo", "sdxl", {**LPO_XL, "collect_prompts": 16}),
        ("spo", "sd1", {**SPO_15, "batch_size": 10, "collect_prompts": 40, "beta": 10.0, "candidates": 4}),
        ("spo", "sdxl", {**SPO_XL, "batch_size": 2, "collect_prompts": 8, "beta": 10.0, "t_max": 750}),
        ("d3po", "sdxl", {"beta": 0.1, "lr": 3e-5, "batch_size": 10, "accumulate": 2, "lora_rank": 4}),
    ],
)
def test_a_family_has_the_numbers_of_the_released_configurations(preset, family, published):
    cfg = lpo.Config(prompts="a", preset=preset).for_family(family)
    assert {name: getattr(cfg, name) for name in published} == published


def test_what_is_set_wins_over_the_family_s_recipe(tmp_path):
    cfg = lpo.Config(prompts="a", preset="spo", threshold_low=0.3, lr=2e-5).for_family("sdxl")
    assert (cfg.threshold_low, cfg.threshold_high, cfg.lr, cfg.lora_rank) == (0.3, 0.4, 2e-5, 64)
    config.save(lpo.Config(prompts="a", preset="spo").for_family("sdxl"), tmp_path / "config.yaml")
    again = config.load(lpo.Config, tmp_path / "config.yaml")
    assert again.threshold_low == again.for_family("sd1").threshold_low == 0.4


def started(folder, output, best: float = 0.7, **changes: object) -> lpo.Trainer:
    """SPO with two prompts on 20 steps, whose judge gives `best` to one candidate and 0 to the others."""
    small = {"collect_prompts": 2, "batch_size": 1, "accumulate": 1, "lora_rank": 2, "trackers": ()}
    values = {"preset": "spo", "reward": BRIGHT, "prompts": "a red circle", **small, **changes}
    trainer = lpo.Trainer(lpo.Config.model_validate({"model": str(folder), "output": output, **values}))
    scorer: Any = trainer.sampler.scorer
    scores = torch.tensor([0.0, best, 0.0, 0.0])
    scorer.judge = lambda numbers, cond: lambda step: scores.repeat(len(numbers), 1)
    return trainer


@pytest.mark.parametrize(("model", "threshold", "kept"), [("tiny_sd", 0.3, 2 * 16), ("tiny_sdxl", 0.4, 0)])
def test_scores_of_70_and_0_are_a_pair_for_stable_diffusion_1_and_not_for_xl(
    request, tmp_path, model, threshold, kept
):
    """softmax(.70, 0) = (.668, .332): .336 = tanh .35 apart, above SPO's .3 and below its .4 for SDXL."""
    p = torch.softmax(torch.tensor([0.7, 0.0]), 0)
    assert float(p[0] - p[1]) == pytest.approx(0.3364, abs=1e-4)
    trainer = started(request.getfixturevalue(model), tmp_path / "run")
    assert list(trainer.sampler.least.values()) == pytest.approx([threshold] * 16)
    rows, _ = trainer.sampler.rows(0, range(2))
    assert len(rows["t"]) == kept
    assert sorted(set(rows["t"].tolist())) == (list(range(1, 752, 50)) if kept else [])
    assert trainer.facts().more["valid rows"] == f"p_best - p_worst above {threshold:g}"


def test_a_set_threshold_keeps_the_pair_for_xl(tiny_sdxl, tmp_path):
    trainer = started(tiny_sdxl, tmp_path / "run", threshold_low=0.3, threshold_high=0.3)
    assert len(trainer.sampler.rows(0, range(2))[0]["t"]) == 2 * 16


def test_a_run_stores_and_resumes_the_family_s_recipe(tiny_sdxl, tmp_path):
    first = started(tiny_sdxl, tmp_path / "run", best=3.0, num_inference_steps=2, t_max=999, max_steps=1)
    first.fit()
    stored = config.load(lpo.Config, tmp_path / "run" / "config.yaml")
    assert (stored.threshold_low, stored.lr, first.state.lr) == (0.4, 1e-5, 1e-5)
    saved = checkpoint.path(tmp_path / "run" / "checkpoints", 1)
    assert checkpoint.is_whole(saved)
    started(tiny_sdxl, tmp_path / "run", num_inference_steps=2, t_max=999, max_steps=2, resume="latest")
