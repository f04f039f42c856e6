"""Measures of how images of one prompt differ from each other, and from those of the base model."""

from __future__ import annotations

from torch import Tensor
from torch.linalg import eigvalsh
from torch.special import entr


def pairwise_distance(embeddings: Tensor) -> float:
    """Mean of 1 - cosine over the pairs of unit embeddings (n, D) -> in [0, 2]; 0 if all are alike.

    Raises ValueError for fewer than two.
    """
    n = len(embeddings)
    if n < 2:
        raise ValueError(f"got {n} image; expected 2 or more of a prompt; sample more")
    cosines = _cosines(embeddings)
    return max(0.0, 1 - float((cosines.sum() - cosines.trace()) / (n * (n - 1))))  # rounding goes below 0


def vendi_score(embeddings: Tensor) -> float:
    """Unit embeddings (n, D) -> in [1, n]: 1 if all are alike, n if all are orthogonal.

    The exponential of the Shannon entropy of the eigenvalues of K / n, where K holds the cosines.
    Friedman and Dieng 2023, "The Vendi Score", definition 3.1.
    """
    eigenvalues = eigvalsh(_cosines(embeddings) / len(embeddings)).clamp(min=0)
    return float(entr(eigenvalues).sum().exp())


def pixel_distance(images: Tensor, base: Tensor) -> Tensor:
    """Root mean square over the pixels of two images each, (B, 3, H, W) in [0, 1] -> (B,) in [0, 1]."""
    return (images - base).square().mean((1, 2, 3)).sqrt()


def embedding_distance(embeddings: Tensor, base: Tensor) -> Tensor:
    """1 - cosine of two unit embeddings each, (B, D) -> (B,) in [0, 2]."""
    return (1 - (embeddings * base).sum(1)).clamp(min=0)


def _cosines(embeddings: Tensor) -> Tensor:
    """(n, D) -> (n, n) in fp64, on the CPU."""
    exact = embeddings.detach().cpu().double()
    return exact @ exact.T
