"""Intervals against analytic cases: coverage of correlated trials, normal width, zero variance, pairs."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from t2ialign.evaluation import statistics
from t2ialign.evaluation.statistics import bootstrap_ci, by_category, form, paired_difference, table, wilson

PER_PROMPT = 4


def correlated_trials(rng: np.random.Generator, prompts: int) -> tuple[list[float], list[str]]:
    """4 images a prompt, whose own pass rate is 0.1 or 0.9 with equal chance: the true mean is 0.5."""
    rates = np.repeat(rng.choice([0.1, 0.9], size=prompts), PER_PROMPT)
    names = [f"prompt {i // PER_PROMPT}" for i in range(len(rates))]
    return (rng.random(len(rates)) < rates).astype(float).tolist(), names


def test_interval_covers_the_truth_19_times_in_20_and_one_by_image_does_not() -> None:
    rng = np.random.default_rng(0)
    by_prompt = by_image = 0
    for trial in range(300):
        values, prompts = correlated_trials(rng, prompts=60)
        right = bootstrap_ci(values, prompts, resamples=800, seed=trial)
        wrong = bootstrap_ci(values, [str(i) for i in range(len(values))], resamples=800, seed=trial)
        by_prompt += right.low <= 0.5 <= right.high
        by_image += wrong.low <= 0.5 <= wrong.high
    # 300 trials at 0.95 have a standard error of 0.013; intervals of 60 groups fall a little short.
    assert 0.91 <= by_prompt / 300 <= 0.985
    assert by_image / 300 <= 0.85


def test_width_is_the_normal_one_for_independent_prompts() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    found = bootstrap_ci(values.tolist(), [str(i) for i in range(400)])
    standard_error = values.std() / math.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * standard_error, rel=0.05)
    assert (found.low + found.high) / 2 == pytest.approx(found.mean, abs=0.1 * standard_error)
    assert (found.count, found.prompts) == (400, 400)


def test_level_scales_the_width() -> None:
    values = np.random.default_rng(2).normal(size=300).tolist()
    prompts = [str(i) for i in range(300)]
    half, most = (bootstrap_ci(values, prompts, level=level) for level in (0.5, 0.95))
    assert (half.high - half.low) / (most.high - most.low) == pytest.approx(0.6745 / 1.96, rel=0.08)


def test_zero_variance_has_zero_width() -> None:
    found = bootstrap_ci([0.25] * 6, ["a", "a", "b", "b", "c", "c"])
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)


def test_unequal_prompts_weigh_by_their_images() -> None:
    assert bootstrap_ci([1, 1, 1, 0], ["a", "a", "a", "b"]).mean == 0.75


def test_one_prompt_has_no_interval() -> None:
    found = bootstrap_ci([1.0, 0.0, 1.0], ["only"] * 3)
    assert found.mean == pytest.approx(2 / 3)
    assert math.isnan(found.low) and math.isnan(found.high)
    assert found.to_json() == {"mean": found.mean, "ci95": None, "count": 3, "prompts": 1}
    assert form(found) == "0.667 (one prompt)"


def test_a_constant_shift_has_an_exact_paired_difference() -> None:
    rng = np.random.default_rng(3)
    before = rng.normal(size=200)
    prompts = [str(i // 2) for i in range(200)]
    found = paired_difference((before + 0.125).tolist(), before.tolist(), prompts)
    assert found.mean == pytest.approx(0.125)
    assert found.high - found.low == pytest.approx(0.0, abs=1e-12)


def test_pairing_beats_two_separate_intervals() -> None:
    """Both share each prompt's difficulty (sd 1) and differ by noise of sd 0.2: the widths go as 1 to 0.2."""
    rng = np.random.default_rng(4)
    difficulty = rng.normal(size=300)
    prompts = [str(i) for i in range(300)]
    before, after = (difficulty + 0.2 * rng.normal(size=300) + shift for shift in (0.0, 0.1))
    paired = paired_difference(after.tolist(), before.tolist(), prompts)
    widths = [e.high - e.low for e in (bootstrap_ci(x.tolist(), prompts) for x in (before, after))]
    assert paired.high - paired.low < 0.3 * math.hypot(*widths)
    assert paired.low > 0 > bootstrap_ci(before.tolist(), prompts).low  # the gain shows only in pairs


def test_same_seed_same_interval_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values, prompts = np.random.default_rng(5).normal(size=80).tolist(), [str(i // 4) for i in range(80)]
    first = bootstrap_ci(values, prompts, seed=7)
    assert first == bootstrap_ci(values, prompts, seed=7)
    assert first != bootstrap_ci(values, prompts, seed=8)
    monkeypatch.setattr(statistics, "CHUNK", 20 * 2 * 333)  # an even number of draws ends every chunk
    assert bootstrap_ci(values, prompts, seed=7) == first
    assert sum(len(drawn) for drawn in statistics._draws(20, 1000, 0)) == 1000


def test_categories_partition_the_whole() -> None:
    values, prompts = correlated_trials(np.random.default_rng(6), prompts=30)
    categories = [("count", "pair", None)[int(p.split()[1]) % 3] for p in prompts]
    parts = by_category(values, prompts, categories)
    assert list(parts) == ["count", "pair"]
    kept = [(v, p) for v, p, c in zip(values, prompts, categories, strict=True) if c]
    whole = bootstrap_ci([v for v, _ in kept], [p for _, p in kept])
    assert sum(e.count for e in parts.values()) == whole.count == 80
    assert sum(e.mean * e.count for e in parts.values()) == pytest.approx(whole.mean * whole.count)


@pytest.mark.parametrize(
    ("values", "prompts", "message"),
    [
        ([], [], "got 0 values"),
        ([1.0], ["a", "b"], "got 1 values of 2 prompts"),
        ([1.0, math.nan], ["a", "b"], "got 1 values that are not finite"),
    ],
)
def test_bad_input_is_an_error(values: list[float], prompts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_ci(values, prompts)


def test_pairs_must_have_two_sides() -> None:
    with pytest.raises(ValueError, match="got 2 values and 1 of the baseline"):
        paired_difference([1.0, 2.0], [1.0], ["a", "b"])


def test_table_leaves_a_hole_where_a_column_lacks_a_row() -> None:
    some = bootstrap_ci([1.0, 0.0], ["a", "b"])
    shown = table("t", {"base": {"all": some, "count": some}, "aligned": {"count": some}}, scale=100)
    cells = [list(column.cells) for column in shown.columns]
    assert cells[0] == ["all", "count"]
    assert cells[2] == ["", "50.0 [0.0, 100.0]"]


@pytest.mark.parametrize(("right", "count"), [(81, 263), (10, 10), (0, 20), (1, 2)])
def test_a_share_has_wilsons_interval(right, count):
    one, theirs = wilson(right, count), binomtest(right, count).proportion_ci(method="wilson")
    assert (one.mean, one.low, one.high) == pytest.approx((right / count, theirs.low, theirs.high), abs=1e-12)
    assert 0 <= one.low < one.high <= 1 and (one.count, one.prompts) == (count, count)


def test_answers_of_one_prompt_are_no_further_trials():
    """As in the literature for 81 of 263: 0.255 to 0.366."""
    once, thrice = wilson(81, 263), wilson(3 * 81, 3 * 263, prompts=263)
    assert (once.low, once.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert (thrice.count, thrice.prompts) == (789, 263)
