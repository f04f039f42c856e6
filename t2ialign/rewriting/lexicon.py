"""The words of `style_cues.json`: what a noun is a kind of, what a prompt says already, what it shows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rewards.text.english import singular

CUES = Path(__file__).with_name("style_cues.json")
_LATER_WINS = ("object", "scene", "food", "imaginary", "animal", "people", "person", "text")
"""The kinds of nouns; a noun that two of them list is of the later one."""
_HINTS = ("imaginary", "drawn", "whole", "indoors", "outdoors", "dark")
# "a traffic light" is no light, and "light blue" none either.
_OTHER_SENSE = re.compile(
    r"\b(?:traffic|stop|tail|head)[\s-]?lights?\b|\blight[\s-](?:bulbs?|house|weight|[a-z]+ish)\b"
    r"|\blight[\s-](?:red|blue|green|yellow|purple|pink|brown|gr[ae]y|orange)\b"
    r"|\bfire[\s-]?(?:hydrant|truck|engine|extinguisher|fighter|place)s?\b|\bstop\ssigns?\b|\bsun\s?(?:flower|glasses)\b"
)


def kind_of(noun: str) -> str | None:
    """Whether a noun is a person, people, an animal, food, a scene, an object, text or imaginary."""
    return _nouns().get(noun) or _nouns().get(singular(noun))


def aspects(text: str) -> set[str]:
    """The aspects that a text states: photo, medium, style, light, mood, composition, finish, plain."""
    read = _OTHER_SENSE.sub(" ", text.lower())
    return {name for name, pattern in _says().items() if pattern.search(read)}


def hints(text: str) -> set[str]:
    """Further hints in its words: imaginary, drawn, whole (bodies), indoors, outdoors, dark."""
    return {name for name, pattern in _shows().items() if pattern.search(text.lower())}


@cache
def _cues() -> Mapping[str, Any]:
    return dict(json.loads(CUES.read_text(encoding="utf-8")))


@cache
def _says() -> Mapping[str, re.Pattern[str]]:
    return {name: _pattern(words) for name, words in _cues()["says"].items()}


@cache
def _shows() -> Mapping[str, re.Pattern[str]]:
    return {name: _pattern(_cues()["shows"][name]) for name in _HINTS}


@cache
def _nouns() -> Mapping[str, str]:
    return {word: kind for kind in _LATER_WINS for word in _cues()["shows"][kind].split()}


def _pattern(words: str) -> re.Pattern[str]:
    each = (re.escape(word).replace("_", r"[\s-]").replace(r"\*", r"\w*") for word in words.split())
    return re.compile(rf"(?<![\w-])(?:{'|'.join(each)})(?!\w|-shaped)")
