"""Agreement of judges, and their accuracy without the truth, on judges whose accuracy is known."""

import numpy as np
import pytest

from t2ialign.evaluation.agreement import accuracies, agreement, label_noise, posterior


def judges(rates, count: int = 20_000, seed: int = 0, silent: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Votes (N, K) of independent judges that are right so often, and the truth (N,)."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([-1, 1], count)
    right = rng.random((count, len(rates))) < np.array(rates)
    votes = np.where(right, truth[:, None], -truth[:, None])
    return np.where(rng.random(votes.shape) < silent, 0, votes), truth


def test_agreement_by_hand():
    votes = np.array([[1, 1, 0], [1, -1, 0], [-1, -1, 1], [0, 1, 0]])
    table = agreement(votes)
    assert table[0, 1] == pytest.approx(2 / 3) and table[0, 0] == 1
    assert table[0, 2] == 0 and table[1, 2] == 0
    assert np.isnan(agreement(np.array([[1, 0], [0, 1]]))[0, 1])


@pytest.mark.parametrize("silent", [0.0, 0.3])
def test_three_judges_reveal_how_good_each_is(silent):
    rates = (0.9, 0.8, 0.65)
    votes, truth = judges(rates, silent=silent)
    estimate = accuracies(votes)
    assert estimate is not None and np.abs(estimate - rates).max() < 0.03
    first = posterior(votes, estimate)
    labels = np.where(first > 0.5, 1, -1)
    noise = label_noise(votes, labels, estimate)
    assert noise == pytest.approx((labels != truth).mean(), abs=0.01)


def test_two_judges_share_what_their_agreement_implies():
    votes, _ = judges((0.8, 0.8))
    estimate = accuracies(votes)
    assert estimate is not None and np.abs(estimate - 0.8).max() < 0.02
    at_odds = accuracies(np.array([[1, -1], [1, -1], [1, 1]] * 20))
    assert at_odds is not None and at_odds.tolist() == [0.5, 0.5]


def test_one_judge_tells_nothing_of_itself():
    votes, _ = judges((0.8,), count=100)
    assert accuracies(votes) is None
    few, _ = judges((0.8, 0.8, 0.8), count=49)
    assert accuracies(few) is None
    assert label_noise(votes, [1] * 10, None) is None
    assert label_noise(votes[:0], [], np.array([0.8])) is None


def test_posterior_by_hand():
    """Two judges of 80 % that agree are right with odds 16 to 1."""
    first = posterior(np.array([[1, 1], [1, -1], [0, -1]]), np.array([0.8, 0.8]))
    assert first.tolist() == pytest.approx([16 / 17, 0.5, 0.2])
