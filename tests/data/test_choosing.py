"""Pairs and likes out of scored images, by hand."""

import math

import numpy as np
import pytest

from t2ialign.data.choosing import Rule, likes, pairs, panel, spreads


def taken(scores, order=None, **rule):
    scores = np.array(scores, dtype=float)
    order = scores[:, 0] if order is None else np.array(order, dtype=float)
    return list(pairs(scores, order, Rule(**rule)))


def test_the_best_against_the_worst():
    ((choice, why),) = taken([[0.2], [0.9], [0.5]])
    assert (choice.win, choice.lose, why) == (1, 0, None)
    assert choice.margin == pytest.approx(0.7) and choice.agreement == 1 and choice.votes == (1,)


def test_every_two_images_and_a_margin():
    choices = taken([[0.2], [0.9], [0.5]], every=True, min_margin=0.35)
    assert [(c.win, c.lose, why) for c, why in choices] == [(1, 2, None), (1, 0, None), (2, 0, "margin")]


def test_equal_scores_are_a_tie_or_left_out():
    ((choice, why),) = taken([[0.5], [0.5]])
    assert why == "tie" and choice.tie and choice.votes == (0,)
    ((_, why),) = taken([[0.5], [0.4]], ties=0.2)
    assert why is None
    ((choice, _),) = taken([[0.5], [0.4]], ties=0.2)
    assert choice.tie
    ((choice, _),) = taken([[0.5], [0.4]], ties=0.05)
    assert not choice.tie


def test_tools_that_disagree():
    scores = [[0.9, 0.1, 0.7], [0.1, 0.9, 0.2]]
    ((choice, why),) = taken(scores, min_agreement=0.6)
    assert choice.agreement == pytest.approx(2 / 3) and why is None
    assert choice.votes == (1, -1, 1) and choice.gaps == pytest.approx((0.8, -0.8, 0.5))
    ((_, why),) = taken(scores, min_agreement=0.7)
    assert why == "agreement"


def test_a_judge_orders_and_the_tools_vouch():
    ((choice, why),) = taken([[0.9], [0.1]], order=[0.0, 1.0], min_agreement=0.5)
    assert (choice.win, choice.agreement, why) == (1, 0.0, "agreement")


def test_images_without_a_score_are_left_out():
    assert taken([[0.9], [math.nan]]) == []
    ((choice, _),) = taken([[0.9, 1.0], [math.nan, 2.0], [0.1, 0.0]])
    assert {choice.win, choice.lose} == {0, 2}


def test_the_panel_weighs_tools_by_their_spread():
    groups = [np.array([[0.0, 0.0], [2.0, 200.0]]), np.array([[5.0, 100.0], [3.0, 300.0]])]
    spread = spreads(groups)
    assert spread.tolist() == [1.0, 100.0]
    assert panel(groups[1], spread).tolist() == [3.0, 3.0]  # each is two spreads better by one of the tools
    assert panel(groups[0][:, :1], spread[:1]).tolist() == [0.0, 2.0]
    assert spreads([np.array([[1.0], [1.0]])]).tolist() == [1.0]


def test_likes_by_quantiles():
    scores = np.arange(10, dtype=float)[:, None]
    said = likes(scores, liked=0.85, disliked=0.5)
    assert said == [False] * 5 + [None] * 3 + [True] * 2


@pytest.mark.parametrize("right", [1, 4, 7])
def test_likes_of_verdicts(right):
    scores = np.array([[1.0]] * right + [[0.0]] * (8 - right))
    assert likes(scores, liked=0.85, disliked=0.5) == [True] * right + [False] * (8 - right)


def test_liked_by_all_tools_disliked_by_one():
    scores = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    assert likes(scores, liked=0.6, disliked=0.1) == [True, False, False]
    equal = np.array([[1.0], [1.0]])
    assert likes(equal, liked=0.85, disliked=0.5) == [None, None]
    assert likes(np.array([[math.nan], [1.0]]), liked=0.85, disliked=0.5) == [None, None]
