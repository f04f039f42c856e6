"""Diversity and distance where the answer is known: all alike, all orthogonal, and by hand in between."""

import math

import pytest
import torch
import torch.nn.functional as F

from t2ialign.evaluation.diversity import (
    embedding_distance,
    pairwise_distance,
    pixel_distance,
    vendi_score,
)


def test_images_that_are_alike_count_as_one_and_orthogonal_ones_as_many():
    alike, apart = F.normalize(torch.ones(4, 5), dim=1), torch.eye(4, 5)
    assert pairwise_distance(alike) == pytest.approx(0, abs=1e-6)
    assert vendi_score(alike) == pytest.approx(1, abs=1e-5)
    assert pairwise_distance(apart) == pytest.approx(1)
    assert vendi_score(apart) == pytest.approx(4)


def test_two_pairs_of_twins_count_as_two():
    """K / n has the eigenvalues 1/2, 1/2, 0, 0; of the six pairs of images two have distance 0."""
    twins = torch.eye(2)[[0, 0, 1, 1]]
    assert vendi_score(twins) == pytest.approx(2)
    assert pairwise_distance(twins) == pytest.approx(4 / 6)


def test_two_images_at_an_angle_by_hand():
    """Cosine 0.6: K / 2 has the eigenvalues 0.8 and 0.2."""
    embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    assert pairwise_distance(embeddings) == pytest.approx(0.4)
    assert vendi_score(embeddings) == pytest.approx(math.exp(-0.8 * math.log(0.8) - 0.2 * math.log(0.2)))


def test_the_order_of_the_images_does_not_matter():
    embeddings = F.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    assert vendi_score(embeddings.flip(0)) == pytest.approx(vendi_score(embeddings), abs=1e-12)
    assert 1 < vendi_score(embeddings) < 6


def test_one_image_has_no_pairs():
    with pytest.raises(ValueError, match="got 1 image; expected 2 or more"):
        pairwise_distance(torch.ones(1, 3))


def test_distances_to_the_base_are_image_by_image():
    base = torch.zeros(2, 3, 4, 4)
    images = base.clone()
    images[1] = 0.5
    images[1, :, :2] = 0.1  # half the pixels: sqrt((0.25 + 0.01) / 2)
    assert pixel_distance(images, base).tolist() == pytest.approx([0, math.sqrt(0.13)])
    one, other = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert embedding_distance(one, other).tolist() == [0, 1]
