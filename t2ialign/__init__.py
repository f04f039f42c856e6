"""Align text-to-image diffusion models: score, train, sample, and prove that the result is better."""

from t2ialign.version import __version__

__all__ = ["__version__"]
