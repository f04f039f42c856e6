"""Scoring images by the million: sources, decoding, batches, a journal, tables and a gallery."""
