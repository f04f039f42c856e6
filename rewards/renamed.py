"""Names that a release has changed: an old one still works, with a warning, until the release after."""

from __future__ import annotations

import logging
from functools import cache

log = logging.getLogger(__name__)

# The toy model was called shapes at first, and all scorers lay side by side in one folder.
TODAY = {
    "shapes": "toy",
    "shapes-clip": "toy-clip",
    "shapes-clip-b": "toy-clip-b",
    "shapes-oracle": "toy-oracle",
    "shapes-rewriter": "toy-rewriter",
    "shapes-textnorm": "toy-textnorm",
    "rewards.pal_fit": "rewards.scorers.pal_reward",
    "rewards.textnorm": "rewards.scorers.textnorm",
}
"""The old name of a model, a reward or an asset -> today's."""


def current(name: str) -> str:
    """Today's name of a model, a reward or an asset; one warning a process for each old name."""
    if name in TODAY:
        warn(name, TODAY[name])
    return TODAY.get(name, name)


@cache
def warn(old: str, new: str) -> None:
    """Say once a process that a name has changed."""
    log.warning("WARNING: %s is now called %s; the old name works until the next release", old, new)
