"""Settings as an old release or another script calls them -> as they are called today."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rewards.renamed import warn
from t2ialign import peers


def key_today(key: str, known: Collection[str]) -> str:
    """Our name of a key that may be written with dashes, or as another script or an old release has it."""
    key = key.replace("-", "_")
    ours = (peers.ALIASES | peers.FORMER).get(key, key)
    if key in known or ours not in known:
        return key
    if key in peers.FORMER:
        warn(f"the setting {key}", ours)
    return ours


def today(values: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Settings under our names; one that is there under ours too keeps its other name, and is unknown."""
    names = {theirs: key_today(str(theirs), known) for theirs in values}
    names = {theirs: name if name not in values else theirs for theirs, name in names.items()}
    return {name: peers.renamed_value(name, values[theirs]) for theirs, name in names.items()}


def place_today(value: str) -> str:
    """Where a file of the recipes lies today, with a warning, or the value itself."""
    if (now := str(peers.former_file(value))) != value:
        warn(f"the file {value}", now)
    return now


def converted(theirs: str, value: Any) -> Any:
    """A value of another script's setting as ours has it."""
    known = peers.VALUES.get(theirs.replace("-", "_"), {})
    return known.get(value, value) if isinstance(value, str) else value
