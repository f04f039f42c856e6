"""PAL recovers planted tastes from mixed votes where one head for all cannot."""

import pytest
import torch
import torch.nn.functional as F

from scripts.experiments.pal import planted_votes, recover, toy_tastes

pytestmark = pytest.mark.rest


def items(seed=0):
    """400 unit embeddings, and two linear tastes at 120 degrees, which agree on a third of the pairs."""
    images = F.normalize(torch.randn(400, 32, generator=torch.Generator().manual_seed(seed)), dim=1)
    return images, torch.stack([images[:, 0], -0.5 * images[:, 0] + 0.75**0.5 * images[:, 1]])


@pytest.mark.parametrize("kind", ["a", "b"])
def test_two_planted_tastes_are_recovered(kind):
    images, tastes = items()
    text = F.normalize(torch.randn(10, 32, generator=torch.Generator().manual_seed(1)), dim=1)
    found = recover(images, tastes, kind=kind, text=text if kind == "b" else None)
    assert found.agree == pytest.approx(1 / 3, abs=0.05)
    assert found.pal >= 0.9
    assert found.new_voter >= 0.9, "from 20 votes"
    assert found.one_head <= 0.75, "no order of images suits both: (1 + agree) / 2 is the most there is"
    assert found.new_voter_before <= 0.75
    assert found.holds


def test_planted_votes_follow_the_taste_and_have_no_ties():
    images, taste = items()[0][:50], torch.arange(50).div(10, rounding_mode="floor").float()
    votes = planted_votes(images, taste, 200, user=3, seed=0)
    index = {tuple(image.tolist()): i for i, image in enumerate(images)}
    left, right = ([index[tuple(row.tolist())] for row in side] for side in (votes.left, votes.right))
    assert all(
        (taste[r] > taste[x]) == bool(w) for x, r, w in zip(left, right, votes.right_wins, strict=True)
    )
    assert not any(taste[r] == taste[x] for x, r in zip(left, right, strict=True))
    assert votes.user.tolist() == [3] * 200


def test_tastes_of_the_toy_world_disagree_on_colour_only():
    first, second = toy_tastes(["a red circle", "a small blue circle", "a red square"])
    assert first[1] > first[0]
    assert second[1] < second[0]
    assert first[2] > first[0]
    assert second[2] > second[0]
