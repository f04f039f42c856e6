"""Names that a release has changed: an old one still works, with a warning, until the release after."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

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
OPTIONS = {"guidance": "guidance_scale"}
"""The old name of a reward's option -> today's."""


def current(name: str) -> str:
    """Today's name of a model, a reward or an asset; one warning a process for each old name."""
    if name in TODAY:
        warn(name, TODAY[name])
    return TODAY.get(name, name)


def current_options(options: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """A reward's options under today's names, where those are among the known ones, with a warning."""
    names = {old: now for old, now in OPTIONS.items() if now in known and old not in known}
    for old in names.keys() & options.keys():
        warn(f"the option {old}", names[old])
    return {names.get(key, key): value for key, value in options.items()}


def updated(value: Any) -> Any:
    """Plain JSON that an earlier release wrote, with today's names as keys and as texts.

    No warning comes of it, since nobody typed the names.
    """
    if isinstance(value, dict):
        return {updated(key): updated(item) for key, item in value.items()}
    if isinstance(value, list):
        return [updated(item) for item in value]
    return TODAY.get(value, value) if isinstance(value, str) else value


def updated_words(text: str) -> str:
    """A description such as "shapes tries=2" of an earlier release, with today's names as words."""
    return re.sub(r"[\w.-]+", lambda word: TODAY.get(word[0], word[0]), text)


def same(earlier: Any, now: Any) -> bool:
    """Whether what an earlier run wrote, perhaps with former names, is what this one has."""
    return bool(earlier == now or updated(earlier) == now)


@cache
def warn(old: str, new: str) -> None:
    """Say once a process that a name has changed."""
    log.warning("WARNING: %s is now called %s; the old name works until the next release", old, new)
