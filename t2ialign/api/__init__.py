"""The public functions of t2ialign, which the commands call too: docs/python.md shows each of them.

Settings have the field's names, and paths may be text. A mistake is a ValueError on one line, which says what
was got, what was expected and what to do.
"""

from t2ialign.api.adapters import export, mix
from t2ialign.api.measuring import evaluate, judge_keypoints, score
from t2ialign.api.pairing import make_pairs
from t2ialign.api.rendering import best_of, rewrite, sample
from t2ialign.api.training import filter_pairs, train

__all__ = [
    "best_of",
    "evaluate",
    "export",
    "filter_pairs",
    "judge_keypoints",
    "make_pairs",
    "mix",
    "rewrite",
    "sample",
    "score",
    "train",
]
