"""Objectives as pure functions: per-sample tensors (B,) in, losses (B,) out; the trainer reduces."""
