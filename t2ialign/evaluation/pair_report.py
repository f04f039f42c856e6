"""The report of pairs made from scores: what was left out, how far the tools agree, how often they err."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from t2ialign.data.choosing import Choice
from t2ialign.evaluation.agreement import accuracies, agreement, label_noise

MOST = 100_000
"""Comparisons of which the agreement is computed at most, the first ones."""


def summarise(
    tools: Sequence[str],
    scores: Sequence[NDArray[np.float64]],
    choices: Sequence[Sequence[tuple[Choice, str | None]]],
) -> dict[str, Any]:
    """Scores (n, K) of the images of each prompt, and its choices, each with why it was left out -> figures.

    "agreement" is that of the tools on every two images of a prompt, "accuracy" what it implies for each,
    "label_noise" the share of the labels of the pairs taken that are wrong by that; None where nothing tells.
    """
    votes = _votes(scores)
    accuracy = accuracies(votes)
    taken = [choice for some in choices for choice, why in some if why is None and not choice.tie]
    labelled = np.array([choice.votes for choice in taken], dtype=int).reshape(-1, len(tools))
    table = agreement(votes)
    named = {} if accuracy is None else dict(zip(tools, accuracy.tolist(), strict=True))
    return {
        "compared": len(votes),
        "dropped": dict(Counter(why for some in choices for _, why in some if why is not None)),
        "ties": sum(choice.tie for some in choices for choice, why in some if why is None),
        "agreement": {
            f"{tools[i]}, {tools[j]}": None if np.isnan(table[i, j]) else float(table[i, j])
            for i, j in combinations(range(len(tools)), 2)
        },
        "accuracy": named,
        "label_noise": label_noise(labelled, [1] * len(taken), accuracy),
        "silent": {name: float((votes[:, k] == 0).mean()) for k, name in enumerate(tools)},
    }


def _votes(scores: Sequence[NDArray[np.float64]]) -> NDArray[np.int_]:
    """What each tool says of every two images of a prompt, (N, K)."""
    votes = []
    for group in scores:
        for i, j in combinations(range(len(group)), 2):
            votes.append(np.sign(np.nan_to_num(group[i] - group[j])))
            if len(votes) == MOST:
                return np.array(votes, dtype=int)
    return np.array(votes, dtype=int)


def table(figures: Mapping[str, Any]) -> Table:
    """The tools as text for a terminal: how often each sees no difference, and how often it is right."""
    shown = Table(title=f"{figures['compared']} comparisons of two images of a prompt", title_justify="left")
    shown.add_column("tool")
    shown.add_column("no preference", justify="right")
    shown.add_column("right, by agreement", justify="right")
    for name in figures["tools"]:
        right = figures["accuracy"].get(name)
        cells = f"{100 * figures['silent'][name]:.1f} %", "-" if right is None else f"{100 * right:.1f} %"
        shown.add_row(name, *cells)
    return shown
