"""Rewards that stand on detected objects, colours, counts and text in images."""
