"""Rewards of noisy latents at a time t."""
