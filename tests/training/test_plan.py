"""The run plan: its numbers by hand, and what each trainer tells before its first step."""

import math
from pathlib import Path

import pytest
import torch

from t2ialign.methods.backprop import trainer as backprop
from t2ialign.methods.dense import trainer as dense
from t2ialign.methods.dpo import trainer as dpo
from t2ialign.methods.lpo import trainer as lpo
from t2ialign.training.facts import Facts
from t2ialign.training.plan import data_words, epochs, plan_rows, smallest_change, warnings
from tests.training import toy
from tests.training.helpers import numbers

PAIRS = Facts("a model", unit="pairs", train=600, heldout=100, accuracy=True, epoch=600, repeats=True)


class Cfg:
    output, precision, batch_size, accumulate, max_steps, checkpoint_every = (
        Path("runs/a"),
        "fp32",
        4,
        8,
        700,
        50,
    )


def test_the_smallest_change_by_hand_and_by_drawing():
    assert smallest_change(100) == pytest.approx(1.959964 * math.sqrt(2) * 0.05, rel=1e-6)  # 13.9 points
    draws = torch.Generator().manual_seed(0)
    both = (torch.rand(2, 4000, 100, generator=draws) < 0.5).float().mean(2)
    beyond = ((both[0] - both[1]).abs() > smallest_change(100)).float().mean()
    assert 0.03 <= beyond <= 0.06  # counts are whole, so not 5 % exactly


def test_the_same_pairs_measured_twice_stay_within_it():
    """A pair's two verdicts agree more often than chance: the unpaired bound is wide enough."""
    draws = torch.Generator().manual_seed(1)
    leaning = torch.rand(4000, 100, generator=draws)  # each pair's own chance to be right
    both = (torch.rand(2, 4000, 100, generator=draws) < leaning).float().mean(2)
    assert ((both[0] - both[1]).abs() > smallest_change(100)).float().mean() <= 0.05


def test_rows_and_warnings_by_hand():
    rows = plan_rows(PAIRS, Cfg, device="cpu", processes=2, parameters=(50, 1000))
    assert rows["trainable"] == "50 of 1,000 parameters (5 %)"
    assert rows["batch"] == "4 x 8 accumulated x 2 processes = 64 rows"
    assert rows["steps"] == "700, 74.7 epochs"  # 700 x 64 / 600
    assert rows["checkpoints"] == "every 50 steps in runs/a/checkpoints"
    assert rows["data"].endswith(
        "100 held out: their accuracy must change by 13.9 points to show (95 %, unpaired)"
    )
    assert epochs(PAIRS, Cfg, 1) == pytest.approx(700 * 32 / 600)
    (warning,) = warnings(PAIRS, Cfg, 2)
    assert (
        warning.startswith("74.7 epochs: beyond 20") and "max_steps=187" in warning
    )  # 187 x 64 / 600 = 19.9
    few = Facts("a model", unit="pairs", train=10, heldout=4, accuracy=True)
    assert "too few to show any change" in data_words(few) and not warnings(few, Cfg, 1)
    assert data_words(Facts("a", unit="prompts", train=3)) == "3 prompts, none held out"


def plan(trainer, capsys) -> dict[str, str]:
    """The lines of what a short run prints before its first step, by their names."""
    capsys.readouterr()
    trainer.fit()
    text = capsys.readouterr().err
    assert text.count("run plan:") == 1
    lines = text[text.index("run plan:") :].splitlines()
    split = (line.strip().partition("  ") for line in lines[: len(lines)] if line.startswith("  "))
    return {name: words.strip() for name, _, words in split}


def test_dpo(dpo_config, pair_cache, capsys):
    cfg = dpo_config(max_steps=1)
    trainer = dpo.Trainer(cfg, cache=pair_cache)
    shown = plan(trainer, capsys)
    assert "StableDiffusionPipeline, predicts eps, 32x32 pixels, latent 4x8x8 = 256 numbers" in shown["model"]
    trained = sum(p.numel() for p in trainer.state.parameters)
    assert shown["trainable"].startswith(f"{trained:,} of ")
    held = len(pair_cache.split(0.3, 0)[1])
    assert shown["data"].startswith(f"{40 - held} pairs, {held} held out")
    assert "78.1 (set to 5000)" in shown["published"]
    assert any(name.startswith("warning: beta=5000 is 64 times larger than 78.1") for name in shown)


def test_a_moderate_beta_is_not_warned_of(dpo_config, pair_cache, capsys):
    shown = plan(dpo.Trainer(dpo_config(max_steps=1, beta=100, holdout=0), cache=pair_cache), capsys)
    assert not any(name.startswith("warning: beta") for name in shown)


REWARD = {
    "prompts": "a red circle",
    "lora_rank": 2,
    "num_inference_steps": 2,
    "guidance_scale": 3,
    "trackers": (),
    "max_steps": 1,
}


def climbing(method, tiny_sd, tmp_path, **more):
    own = {
        "backprop": {"reward": "tests.training.redness", "preset": "draft-k", "batch_size": 2, "lr": 1e-3},
        "dense": {
            **{
                "reward": "tests.training.brightness",
                "collect_every": 1,
                "collect_prompts": 2,
                "rollouts": 3,
            },
            **{"keep": 2, "batch_size": 2, "rollout_batch": 6},
        },
        "lpo": {
            **{"reward": "tests.training.brightness", "threshold_low": 0, "threshold_high": 0, "t_max": 999},
            **{"collect_prompts": 4, "batch_size": 2},
        },
    }[method]
    module = {"backprop": backprop, "dense": dense, "lpo": lpo}[method]
    values = {**REWARD, **own, "model": str(tiny_sd), "output": tmp_path / method, **more}
    return module.Trainer(module.Config.model_validate(values))


@pytest.mark.parametrize("method", ["backprop", "dense", "lpo"])
def test_reward_trainers_show_where_they_start(method, tiny_sd, tmp_path, capsys):
    shown = plan(climbing(method, tiny_sd, tmp_path), capsys)
    assert "2 steps, guidance 3, eta" in shown["sampling"] and shown["data"].startswith("1 prompts")
    (line,) = [name for name in shown if name.startswith("mean tests.training.")]
    assert line.endswith("of 8 images of 1 prompts at guidance 3")
    names = {"backprop": set(), "dense": {"temperature", "clip"}, "lpo": {"beta"}}[method]
    assert {
        name for name in ("temperature", "clip", "beta") if f"{name} " in shown.get("published", "")
    } == names


def test_the_start_is_measured_on_validation_images_once(tiny_sd, tmp_path, capsys, monkeypatch):
    """Validation prompts come first; a resumed run has no start; training is the same with and without it."""
    shown = plan(climbing("backprop", tiny_sd, tmp_path / "a", validation_prompts=("a cat", "a dog")), capsys)
    assert any(name.endswith("of 8 images of 2 prompts at guidance 3") for name in shown)
    with monkeypatch.context() as patch:
        patch.setattr(backprop.Trainer, "start", lambda self: "none")
        plain = climbing("backprop", tiny_sd, tmp_path / "b", validation_prompts=("a cat", "a dog"))
        plain.fit()
    assert numbers(tmp_path / "a" / "backprop") == numbers(tmp_path / "b" / "backprop")
    more = {"validation_prompts": ("a cat", "a dog"), "resume": "latest", "max_steps": 2}
    again = plan(climbing("backprop", tiny_sd, tmp_path / "a", **more), capsys)
    assert "model" in again and not any(name.startswith("mean ") for name in again)


def test_a_trainer_that_says_nothing_of_itself_has_a_plan(toy_config, capsys):
    shown = plan(toy.Trainer(toy_config(max_steps=1)), capsys)
    assert shown["steps"] == "1" and "latent 4x8x8" in shown["model"]
