"""Limits the length of prompts: the time to read a word without end grows with the square of its length."""

LONGEST_PROMPT = 20_000
"""Letters of a prompt: some 4,000 words, more than any encoder or judge of images reads with care."""
SHOWN = 60
"""Letters that a message quotes."""


def too_long(prompt: str, most: int = LONGEST_PROMPT) -> str | None:
    """An error message for a prompt of more than `most` letters; None for others."""
    if len(prompt) <= most:
        return None
    start = f"{prompt[:SHOWN]!r}..."
    return f"got a prompt of {len(prompt)} letters ({start}); expected at most {most}; shorten it"
