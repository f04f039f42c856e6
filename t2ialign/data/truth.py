"""A cell of a table that is true or false, as any format writes it."""

from __future__ import annotations

from typing import Any

from t2ialign.data.skipped import Fault
from t2ialign.io.messages import quoted

WORDS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
"""Truth as text, which is all that a CSV has."""
NO_LABEL = "without a label"


def truth(where: str, column: str, value: Any) -> bool:
    """Whether the cell of that column is true. Raises a Fault for what is neither true nor false."""
    known = WORDS.get(value.strip().lower()) if isinstance(value, str) else None
    if known is None and not isinstance(value, str) and value in (0, 1):
        known = bool(value)
    if known is None:
        raise Fault(
            NO_LABEL, f"{where}: got {column} {quoted(value)}; expected true or false; correct the row"
        )
    return known
