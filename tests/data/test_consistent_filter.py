"""The filter's rule, on numbers worked out by hand."""

import numpy as np
import pytest

from t2ialign.data.consistent_filter import STRATEGIES, Limits, allowed, consistent, dropped_by

ROWS = [
    # gaps of the three rewards, preference, and the strategies that keep the pair
    ((0.0, 0.0, 0.0), 1.0, {1, 2, 3}),
    ((0.3, 0.01, 0.2), 1.0, {1, 2, 3}),
    ((-0.5, 0.0, 0.1), 1.0, {2, 3}),
    ((-0.5001, 0.1, 0.1), 1.0, {3}),
    ((-1.0, 0.1, 0.1), 0.7, {3}),
    ((-1.1, 0.1, 0.1), 1.0, set()),
    ((2.0, -1e-6, 0.5), 1.0, set()),
    ((2.0, 0.5, -1e-6), 0.6, set()),
    ((0.2, -0.03, 0.07), 0.5, {1, 2, 3}),
    ((-0.2, 0.03, -0.07), 0.5, {1, 2, 3}),
    ((0.21, 0.0, 0.0), 0.5, set()),
    ((0.0, -0.031, 0.0), 0.5, set()),
    ((0.0, 0.0, 0.071), 0.5, set()),
]
GAPS, PREFERENCES = np.array([row[0] for row in ROWS]), np.array([row[1] for row in ROWS])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_keeps_what_the_paper_says(strategy):
    chosen = consistent(GAPS, PREFERENCES, STRATEGIES[strategy])
    assert chosen.tolist() == [strategy in row[2] for row in ROWS]


def test_a_wider_floor_keeps_a_superset():
    chosen = [consistent(GAPS, PREFERENCES, STRATEGIES[strategy]) for strategy in (1, 2, 3)]
    assert (chosen[0] <= chosen[1]).all() and (chosen[1] <= chosen[2]).all()


def test_swapping_the_sides_of_a_tie_changes_nothing():
    tied = PREFERENCES == 0.5
    limits = Limits((0.0, 0.0, 0.0), (0.2, 0.02, 0.07))
    rows = GAPS[tied]
    assert (allowed(rows, PREFERENCES[tied], limits) == allowed(-rows, PREFERENCES[tied], limits)).all()


def test_limits_are_of_their_own_reward():
    limits = Limits((-2.0, 1.0, 0.0), (3.0, 0.0, 0.5))
    gaps = [[-2, 1, 0], [-2, 0.5, 0], [-3, 0, 0], [3, 0, -0.5], [0, 0.1, 0]]
    mask = allowed(gaps, [1, 1, 1, 0.5, 0.5], limits)
    assert mask.tolist() == [
        [True, True, True],
        [True, False, True],
        [False, False, True],
        [True, True, True],
        [True, False, True],
    ]


def test_what_is_dropped_is_counted_once_by_who_forbids_it():
    allows = np.array(
        [[1, 1, 1], [0, 1, 1], [0, 1, 1], [1, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]], bool
    )
    assert dropped_by(allows, ["a", "b", "c"]) == {
        "a": 2,
        "b": 1,
        "c": 0,
        "a + b": 1,
        "a + c": 0,
        "b + c": 1,
        "a + b + c": 2,
    }


@pytest.mark.parametrize(
    ("gaps", "preferences", "message"),
    [
        ([[0, 0]], [1], r"got gaps \(1, 2\) and preferences \(1,\); expected \(N, 3\)"),
        ([[0, 0, 0]], [1, 1], r"preferences \(2,\)"),
        ([[0, np.nan, 0], [0, 0, 0]], [1, 1], r"got 1 pairs whose gaps are not finite"),
        ([[0, 0, np.inf]], [1], r"not finite"),
        ([[0, 0, 0]], [0.2], r"got preferences from 0.2 to 0.2; expected the winner's share"),
        ([[0, 0, 0]], [np.nan], r"expected the winner's share"),
    ],
)
def test_what_has_no_meaning_is_an_error(gaps, preferences, message):
    with pytest.raises(ValueError, match=message):
        consistent(gaps, preferences, STRATEGIES[2])


def test_no_pairs_are_no_error():
    assert consistent(np.zeros((0, 3)), np.zeros(0), STRATEGIES[2]).shape == (0,)
