"""The loop of every method, and what it writes."""
