"""Accuracy on key points against numbers by hand, and agreement with annotations."""

import math

import numpy as np
import pytest

from t2ialign.evaluation.keypoints.accuracy import Judged, accuracy, mean_over_groups
from t2ialign.evaluation.keypoints.agreement import OVERALL, agreement, markdown
from t2ialign.evaluation.statistics import bootstrap_ci

JUDGED = [
    Judged("1", "p", "counting", 1.0),
    Judged("1", "p", "size", 0.9),
    Judged("2", "p", "counting", 0.2),
    Judged("2", "p", "size", None),
    Judged("3", "q", "counting", 0.5),
    Judged("3", "q", "text_layout", 0.51),
    Judged("4", "q", "text_layout", None),
]


def means(found):
    return {name: (one.mean, one.count) for name, one in found.items()}


def test_unreadable_answers_are_left_out_or_wrong():
    found = accuracy(JUDGED)
    assert means(found.kinds) == {"counting": (1 / 3, 3), "size": (1, 1), "text_layout": (1, 1)}
    assert list(found.kinds) == ["counting", "size", "text_layout"]
    assert means(found.categories) == {"visual": (0.5, 4), "text": (1, 1)}
    assert found.points is not None and (found.points.mean, found.points.count) == (3 / 5, 5)
    assert found.over_kinds is not None and found.over_kinds.mean == pytest.approx(7 / 9)
    # The second image has a wrong point whatever the unreadable one is; of the fourth nothing is known.
    assert found.images is not None and (found.images.mean, found.images.count) == (1 / 3, 3)

    wrong = accuracy(JUDGED, unreadable_is_wrong=True)
    assert means(wrong.kinds) == {"counting": (1 / 3, 3), "size": (0.5, 2), "text_layout": (0.5, 2)}
    assert wrong.points is not None and wrong.points.mean == 3 / 7
    assert wrong.images is not None and (wrong.images.mean, wrong.images.count) == (1 / 4, 4)


def test_nothing_readable_is_no_figure_and_not_zero():
    found = accuracy([Judged("1", "p", "size", None)])
    assert found.points is found.over_kinds is found.images is None
    assert found.to_json()["kinds"] == {} and found.to_json()["points"] is None


def test_the_same_image_for_two_prompts_is_two():
    found = accuracy([Judged("1", "p", "size", 1.0), Judged("1", "q", "size", 0.0)])
    assert found.images is not None and (found.images.mean, found.images.count) == (0.5, 2)


def test_groups_have_equal_weight_and_prompts_are_drawn_whole():
    values = [1.0] * 90 + [0.0] * 10
    groups, prompts = ["a"] * 90 + ["b"] * 10, [str(row % 25) for row in range(100)]
    found = mean_over_groups(values, groups, prompts)
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)
    assert (found.count, found.prompts) == (100, 25)

    draw = np.random.default_rng(1)
    values = draw.integers(0, 2, 400).astype(float).tolist()
    prompts = [str(row) for row in draw.integers(0, 60, 400)]
    one, plain = mean_over_groups(values, ["a"] * 400, prompts), bootstrap_ci(values, prompts)
    assert one.mean == pytest.approx(plain.mean)
    assert (one.low, one.high) == pytest.approx((plain.low, plain.high), abs=0.01)


def test_a_rare_group_widens_the_interval():
    draw = np.random.default_rng(2)
    values, prompts = draw.integers(0, 2, 200).astype(float).tolist(), [str(row) for row in range(200)]
    even = mean_over_groups(values, ["a", "b"] * 100, prompts)
    rare = mean_over_groups(values, ["a"] * 5 + ["b"] * 195, prompts)
    assert rare.high - rare.low > 2 * (even.high - even.low)


def test_groups_that_do_not_fit():
    with pytest.raises(ValueError, match="got 0 values, 0 groups"):
        mean_over_groups([], [], [])
    with pytest.raises(ValueError, match="got 1 values, 2 groups"):
        mean_over_groups([1.0], ["a", "b"], ["p"])
    assert math.isnan(mean_over_groups([1.0], ["a"], ["p"]).low)


def test_agreement_by_hand():
    said = [True, True, False, True, True]
    truth = [True, True, True, False, True]
    named = ["size", "size", "size", "size", "counting"]
    found = agreement(said, truth, named, list("pqrst"))
    size, whole = found["size"], found[OVERALL]
    assert list(found) == ["counting", "size", OVERALL]
    assert (size.pairs, size.matching, size.accuracy.mean) == (4, 0.75, 0.5)
    assert size.balanced is not None and size.balanced.mean == pytest.approx((2 / 3 + 0) / 2)
    assert found["counting"].balanced is None, "one label says nothing of a judge that always says so"
    assert whole.accuracy.mean == 0.6 and whole.balanced == size.balanced
    table = "\n".join(markdown(found))
    assert (
        "| Size | 4 | 75.0 | 50.0 " in table and "| Counting | 1 | 100.0 | 100.0 (one prompt) | - |" in table
    )
    with pytest.raises(ValueError, match="got 0 values"):
        agreement([], [], [], [])
