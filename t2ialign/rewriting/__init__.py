"""Rewriting prompts before generation: everything around the model that writes, and rules that need none."""
