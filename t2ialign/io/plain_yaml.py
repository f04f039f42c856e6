"""YAML of any origin -> plain values; what is too large or too deep for settings is an error."""

from __future__ import annotations

from typing import Any

import yaml

MOST, DEEPEST = 100_000, 20
"""Values that a text may hold, each alias counted in full, and how far they may be nested."""


def read(text: str) -> Any:
    """The value of a YAML text. Raises ValueError, saying why on one line, for anything that is none.

    Aliases that multiply to more than `MOST` values, nesting beyond `DEEPEST`, and a key that is given twice
    are refused too.
    """
    try:
        value = yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except Exception as error:  # constructors of tags raise whatever a wrong value leads them to
        reason = " ".join(str(error).split()).rstrip(".")
        known = isinstance(error, yaml.YAMLError | ValueError) and reason
        raise ValueError(reason if known else f"{type(error).__name__}: {reason}") from error
    _check_size(value)
    return value


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would take the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node."""
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise ValueError(f"it gives {key.value[:80]!r} twice; leave one of them out")
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _check_size(value: Any) -> None:
    """Counts the values to visit, so that aliases of aliases and a list within itself end."""
    waiting, count = [(value, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if count > MOST:
            raise ValueError(f"it holds more than {MOST} values")
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")
        parts = [*item, *item.values()] if isinstance(item, dict) else item
        if isinstance(parts, list | tuple | set):
            waiting += [(part, depth + 1) for part in parts]
