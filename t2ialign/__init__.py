"""Align text-to-image diffusion models: score, train, sample, and prove that the result is better."""

__version__ = "0.1.0"
