"""A run that does not move says so, once, after a tenth of its steps."""

import json
import math

import numpy as np
import pytest

from t2ialign.methods.dpo.trainer import LEAST_MARGIN, Trainer
from t2ialign.training.log import METRICS
from t2ialign.training.watch.movement import LEAST, Movement, difference, mean, trend

LEVERS = {"lr": 1e-5, "beta": 5000.0}


def feed(values, *, first=20, floor=None):
    """Warnings of a run of one metric, a value a step."""
    movement = Movement({"reward": floor}, LEVERS, first=first)
    return [line for step, value in enumerate(values, 1) for line in movement.add(step, {"reward": value})]


def test_the_trend_by_hand():
    """0, 2, 1, 3 has slope .8: change 2.4; residuals -.3, .9, -.9, .3; S = 5, error 3 sqrt(1.8 / 2 / 5)."""
    change, error = trend([0.0, 2.0, 1.0, 3.0])
    assert change == pytest.approx(2.4) and error == pytest.approx(3 * math.sqrt(1.8 / 2 / 5))
    assert mean([1.0, 2.0, 3.0]) == pytest.approx((2.0, math.sqrt(1 / 3)))
    assert difference([(1.0, 0.3), (5.0, 9.0), (2.0, 0.4)]) == pytest.approx((1.0, 0.5))


def test_the_trend_is_that_of_numpy():
    values = np.random.default_rng(0).normal(size=30).cumsum()
    (slope, _), covariance = np.polyfit(range(30), values, 1, cov=True)
    expected = 29 * slope, 29 * math.sqrt(covariance[0, 0])
    assert trend(list(values)) == pytest.approx(expected)


def test_a_constant_series_warns_once_naming_the_settings():
    (warning,) = feed([0.1] * 200)
    assert warning.startswith("reward has not risen by twice its standard error in 20 steps (change +0, ")
    assert warning.endswith("look at lr (now 1e-05), beta (now 5000.0)")


def test_a_rising_series_does_not_warn_and_a_falling_one_does():
    noise = np.random.default_rng(1).normal(size=20)
    assert not feed(0.3 * np.arange(20) + noise)
    assert feed(-0.3 * np.arange(20) + noise)


@pytest.mark.parametrize("floor", [None, 0.0])
def test_noise_around_nothing_warns_nearly_always(floor):
    rng = np.random.default_rng(2)
    warned = sum(bool(feed(rng.normal(size=20), floor=floor)) for _ in range(200))
    assert warned >= 185  # two standard errors upwards come by chance in 3 of 100


def test_a_metric_that_starts_at_zero_is_judged_by_its_mean():
    """A margin that jumps to a level and stays there has no trend later on, but it has moved."""
    noise = np.random.default_rng(3).normal(size=20)
    level = 2 + noise
    assert not feed(level, floor=0.0) and feed(level)
    (warning,) = feed(level, floor=3.0)
    assert f"reward is {np.mean(level):.3g} on average over 20 steps, below 3" in warning


def test_it_waits_for_a_tenth_of_the_run_and_for_enough_values():
    assert not feed([0.1] * 19)
    assert feed([0.1] * LEAST, first=2) and not feed([0.1] * (LEAST - 1), first=2)
    rounds = [0.1 if step % 5 == 0 else math.nan for step in range(60)]  # one value in five steps
    (warning,) = feed(rounds)
    assert "in 46 steps" in warning


def test_means_with_errors_need_two():
    movement = Movement({"reward": None}, LEVERS, first=4)
    assert not movement.add(1, {"reward": 1.0, "reward_error": 0.3})
    (warning,) = movement.add(21, {"reward": 1.9, "reward_error": 0.4})  # .9 < 2 x .5
    assert "change +0.9, standard error 0.5" in warning
    movement = Movement({"reward": None}, LEVERS, first=4)
    movement.add(1, {"reward": 1.0, "reward_error": 0.3})
    assert not movement.add(21, {"reward": 2.1, "reward_error": 0.4})  # 1.1 > 2 x .5


def warned(trainer, capsys):
    trainer.fit()
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: margin")]


def test_a_run_that_hardly_moves_warns_and_a_tuned_one_does_not(dpo_config, pair_cache, tmp_path, capsys):
    """Latents of 256 numbers, as the toy model's; ten steps."""
    settings = {"max_steps": LEAST, "holdout": 0, "safeguard": 0}
    idle = dpo_config(lr=1e-6, output=tmp_path / "idle", **settings)
    (warning,) = warned(Trainer(idle, cache=pair_cache), capsys)
    assert "lr (now 1e-06), lora_rank (now 4), beta (now 5000.0)" in warning
    tuned = dpo_config(lr=1e-3, beta=500, batch_size=80, output=tmp_path / "tuned", **settings)
    assert not warned(Trainer(tuned, cache=pair_cache), capsys)
    rows = [json.loads(line) for line in (tmp_path / "tuned" / METRICS).read_text().splitlines()]
    margins = [row["margin"] for row in rows if row["step"]]
    assert len(margins) == LEAST and np.mean(margins) > 2 * LEAST_MARGIN * 500 / 78.125


def test_a_resumed_run_warns_where_the_whole_one_does(dpo_config, pair_cache, capsys):
    settings = {"lr": 1e-6, "holdout": 0, "checkpoint_every": 4}
    assert not warned(Trainer(dpo_config(max_steps=8, **settings), cache=pair_cache), capsys)
    more = dpo_config(max_steps=16, resume="latest", **settings)
    assert len(warned(Trainer(more, cache=pair_cache), capsys)) == 1  # at step 10, with the values of 1 to 8
    again = dpo_config(max_steps=20, resume="latest", **settings)
    assert not warned(Trainer(again, cache=pair_cache), capsys)  # said before
