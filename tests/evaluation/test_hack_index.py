"""The hack index by hand: when a fall counts, from which best it is taken, and what it says."""

import math

import pytest

from t2ialign.evaluation.hack_index import (
    Fall,
    best_step,
    falls,
    first_fired,
    heldout_mean,
    in_base_std,
    none_found,
    words,
)

BASE = [0.0, 2.0, 4.0]
"""Three prompts: mean 2, standard deviation 2, so that 0.1 base-std is 0.2."""


def moved(*changes: float) -> list[float]:
    """The base, each prompt changed by its own number, or all by the only one."""
    each = changes * 3 if len(changes) == 1 else changes
    return [value + change for value, change in zip(BASE, each, strict=True)]


def rising(*steps: int) -> dict[int, list[float]]:
    """A trained reward whose mean is a tenth of the step."""
    return {step: [step / 10] * 3 for step in steps}


@pytest.mark.parametrize(("share", "fires"), [(0.09, False), (0.11, True)])
def test_a_fall_counts_from_a_tenth_of_the_base_s_spread(share, fires):
    """All prompts fall alike, so the standard error is 0 and 0.1 base-std = 0.2 decides."""
    fall = falls("pickscore", {0: BASE, 10: moved(-2 * share)}, rising(0, 10))[-1]
    assert fall.threshold == pytest.approx(0.2) and fall.base_std == pytest.approx(2)
    assert fall.drop == pytest.approx(2 * share)
    assert fall.index == pytest.approx(share / 0.1) and fall.fired is fires


@pytest.mark.parametrize(("all_fall_by", "fires"), [(1.1, False), (1.2, True)])
def test_a_fall_has_to_exceed_two_standard_errors_of_the_paired_differences(all_fall_by, fires):
    """Differences d - 1, d, d + 1: their std is 1, their mean's error 1 / sqrt 3, twice that 1.1547."""
    lost = moved(1 - all_fall_by, -all_fall_by, -1 - all_fall_by)
    fall = falls("pickscore", {0: BASE, 10: lost}, rising(0, 10))[-1]
    assert fall.threshold == pytest.approx(2 / math.sqrt(3))
    assert fall.drop == pytest.approx(all_fall_by) and fall.fired is fires


def test_pairing_by_prompt_finds_what_two_means_would_not():
    """Prompts 100 apart that all fall by 20.1: the unpaired error is 58, the paired one is 0."""
    base = [0.0, 100.0, 200.0]
    fall = falls("pickscore", {0: base, 10: [v - 20.1 for v in base]}, rising(0, 10))[-1]
    assert fall.threshold == pytest.approx(10) and fall.fired


def test_nothing_fires_while_the_trained_reward_does_not_rise():
    heldout = {0: BASE, 10: moved(1), 20: moved(-1)}
    for trained, fires in (([0.0, 0.5, 0.6], True), ([0.0, 0.5, 0.5], False), ([0.0, 0.5, 0.4], False)):
        series = {step: [mean] * 3 for step, mean in zip((0, 10, 20), trained, strict=True)}
        fall = falls("pickscore", heldout, series)[-1]
        assert fall.fired is fires and (fall.index > 0) is fires
        assert (fall.best_step, fall.usable, fall.drop) == (10, 0.5, pytest.approx(2))


def test_without_a_trained_reward_the_fall_alone_decides_and_the_words_say_so():
    (_, fall) = falls("pickscore", {0: BASE, 10: moved(-1)})
    assert fall.fired and fall.usable is None
    assert words(fall).endswith("no trained reward is measured, so whether it still rises was not checked")


def test_of_equal_bests_the_last_counts():
    """The reward was still whole at step 20, so what was trained until then is usable."""
    heldout = {0: BASE, 10: moved(1), 20: moved(1), 30: moved(0)}
    fall = falls("pickscore", heldout, rising(0, 10, 20, 30))[-1]
    assert (fall.best_step, fall.usable) == (20, 2)
    assert best_step(heldout) == 20


def test_at_the_best_and_where_nothing_moves_the_index_is_0():
    same = {step: [5.0, 5.0, 5.0] for step in (0, 10)}
    assert [fall.index for fall in falls("constant", same, rising(0, 10))] == [0, 0]
    up = falls("pickscore", {0: BASE, 10: moved(1)}, rising(0, 10))
    assert [(fall.index, fall.drop) for fall in up] == [(0, 0), (0, 0)]


def test_a_reward_alike_on_all_prompts_fires_at_any_fall_of_all_of_them():
    """Spread and error are 0: nothing explains the fall by chance."""
    fall = falls("constant", {0: [5.0, 5.0], 10: [4.0, 4.0]}, {0: [0.0, 0.0], 10: [1.0, 1.0]})[-1]
    assert fall.threshold == 0 and fall.index == math.inf and fall.fired


def test_the_first_of_several_rewards_to_fire_is_named():
    trained = rising(0, 10, 20, 30)
    late = falls("late", {0: BASE, 10: moved(0.1), 20: moved(0), 30: moved(-1)}, trained)
    early = falls("early", {0: BASE, 10: moved(1), 20: moved(0.5), 30: moved(-3)}, trained)
    assert [fall.step for fall in late if fall.fired] == [30]
    assert [fall.step for fall in early if fall.fired] == [20, 30]
    first = first_fired([*late, *early])
    assert first is not None and (first.reward, first.step, first.best_step) == ("early", 20, 10)
    at_once = first_fired(fall for fall in [*late, *early] if fall.step == 30)
    assert at_once is not None and at_once.reward == "early", "the one furthest beyond its threshold"
    assert first_fired(late[:3]) is None


def test_the_words_have_every_number_of_the_decision():
    fall = Fall("hpsv2.1", 300, 200, 0.031, 0.012, 0.1, usable=0.52, trained=0.61)
    assert words(fall) == (
        "over-optimised at step 300: held-out hpsv2.1 fell 0.031 (0.31 base-std) below its best of step 200, "
        "beyond the threshold of 0.012, while the trained reward rose from 0.52 to 0.61; usable reward: 0.52"
    )


def test_the_mean_of_several_numbers_is_taken_in_units_of_each_one_s_spread():
    """A reward of spread 2 that rises by half of it, a diversity of spread 0.02 that falls by 0.75 of it."""
    diversity = {0: [0.1, 0.12, 0.14], 10: [0.085, 0.105, 0.125], 20: [0.0, 0.0, 0.0]}
    mean = heldout_mean([{0: BASE, 10: moved(1)}, diversity])
    assert list(mean) == [0, 10], "step 20 lacks the reward"
    assert mean[0] == pytest.approx([-1, 0, 1])
    assert mean[10] == pytest.approx([-1.125, -0.125, 0.875])
    (_, fall) = falls("mean", mean, rising(0, 10))
    assert fall.base_std == pytest.approx(1), "of [-1, 0, 1]: both members order the prompts alike"
    assert fall.drop == pytest.approx(0.125) and fall.threshold == pytest.approx(0.1) and fall.fired
    assert not falls("reward", {0: BASE, 10: moved(1)}, rising(0, 10))[-1].fired


def test_a_member_that_is_alike_on_all_prompts_has_no_unit_and_is_left_out():
    flat, moving = {0: [5.0] * 3, 10: [4.0] * 3}, {0: BASE, 10: moved(1)}
    assert heldout_mean([flat, moving, moving]) == heldout_mean([moving, moving])
    assert heldout_mean([flat, moving]) == heldout_mean([]) == {}, "one alone has an index of its own"


def test_one_prompt_is_refused():
    with pytest.raises(ValueError, match="got 1 prompt; expected 2 or more"):
        falls("pickscore", {0: [1.0], 10: [0.0]})


def test_curves_are_in_units_of_the_base_s_spread():
    assert in_base_std({0: BASE, 10: moved(1), 20: moved(-3)}) == {0: 0, 10: 0.5, 20: -1.5}
    assert in_base_std({0: [5.0, 5.0], 10: [4.0, 4.0]}) is None


def test_a_run_of_few_measurements_tells_nothing():
    assert none_found(4) == "too short to tell (measurements after the base: 4; it takes 5 or more)"
    assert none_found(5) == "no over-optimisation found"
