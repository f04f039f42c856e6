"""One folder a method, read from top to bottom."""
