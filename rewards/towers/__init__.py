"""Encoders of image and text, and the heads on their embeddings."""
