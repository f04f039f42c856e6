"""Settings of `train` as options: --lr 1e-5 and --lr=1e-5 become lr=1e-5, which stands for both."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, get_origin

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from t2ialign.config import Config

VERB_OPTIONS = ("--help", "--debug", "--quiet")
"""Options of the verb that take no value."""
RECIPE = ("-c", "--config")
"""The one that takes a value."""
BOOLEANS = ("true", "false", "yes", "no", "on", "off", "1", "0")
OPTION = re.compile(r"--?[A-Za-z]")
"""How an option begins: -1e-5 is a number."""


def as_overrides(
    words: Sequence[str], methods: Collection[str], config_of: Callable[[str], type[Config]]
) -> list[str]:
    """The words of a command line, the method first and every setting as key=value; the verb's options stay.

    config_of: the settings of a method, asked where there is an option that may be one. A setting that is
    true or false may stand alone, --flip for flip=true, and a list takes all words up to the next option.
    Raises ValueError for a setting without a value.
    """
    first = next((place for place, word in enumerate(words) if _is_setting(word)), None)
    if first is None:
        return list(words)
    place = _method(words, methods)
    if place is None:
        return list(words[:first])
    cls, queue = config_of(words[place]), deque([*words[:place], *words[place + 1 :]])
    result = [words[place]]
    while queue:
        word = queue.popleft()
        result.append(_assignment(cls, word, queue) if _is_setting(word) else word)
        if word in RECIPE and queue:
            result.append(queue.popleft())
    return result


def _is_setting(word: str) -> bool:
    return word.startswith("--") and len(word) > 2 and word.partition("=")[0] not in (*VERB_OPTIONS, *RECIPE)


def _method(words: Sequence[str], methods: Collection[str]) -> int | None:
    """Where the method stands: in front, or else where a word names one and is best not taken for a value."""
    if words and not OPTION.match(words[0]):
        return 0
    bare = [place for place, word in enumerate(words) if not OPTION.match(word) and "=" not in word]
    bare = [place for place in bare if not (place and words[place - 1] in RECIPE)]
    free = [place for place in bare if not (place and _is_setting(words[place - 1]))]
    named = [place for place in [*free, *bare] if words[place] in methods]
    return next(iter(named or free), None)


def _assignment(cls: type[Config], word: str, queue: deque[str]) -> str:
    """One setting as key=value, its value taken from the words that follow where it has none."""
    from t2ialign.config import members, renamed

    key, equals, value = word[2:].partition("=")
    if equals:
        return f"{key}={value}"
    field = cls.model_fields.get(renamed(cls, key))
    if field is not None and bool in members(field.annotation):
        alone = not queue or queue[0].lower() not in BOOLEANS
        return f"{key}={'true' if alone else queue.popleft()}"
    given: list[str] = []
    while queue and (not given or _is_list(field)) and not _starts_anew(cls, queue[0]):
        given.append(queue.popleft())
    if not given and field is not None:
        raise ValueError(f"got {word} without a value; expected one; write {word} VALUE, or {key}=VALUE")
    return f"{key}={json.dumps(given, ensure_ascii=False) if len(given) > 1 else ''.join(given)}"


def _is_list(field: FieldInfo | None) -> bool:
    return field is not None and get_origin(field.annotation) is tuple


def _starts_anew(cls: type[Config], word: str) -> bool:
    """Whether a word is no value: an option, or an override of a setting that there is."""
    from t2ialign.config import renamed

    key, equals, _ = word.partition("=")
    return bool(OPTION.match(word)) or (
        bool(equals) and renamed(cls, key).partition(".")[0] in cls.model_fields
    )
