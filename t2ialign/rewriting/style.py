"""Composition, light, medium and finish in words that people write, where a prompt says nothing of them.

What is added, when, and how often people write it is data (`style_words.json`); so are the words by which a
prompt says it already, or says what it shows (`style_cues.json`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import dropwhile
from pathlib import Path
from typing import Any

from rewards.text.contrast_text import ADJECTIVES, Token, ends_phrase, style_end, tokens
from rewards.text.contrast_words import ENGLISH, NOUNS_IN_ING
from rewards.text.english import article, is_plural, plural, value
from t2ialign.rewriting.clarify import MASK
from t2ialign.rewriting.lexicon import aspects, hints, kind_of

WORDS = Path(__file__).with_name("style_words.json")
SLOTS = ("composition", "light", "medium", "finish")
ENOUGH = 30
"""Words from which on a prompt describes its image; nothing is added to it."""
LISTED = 3
"""Parts between commas from which on a prompt is a list of its writer's own style words."""

_NAMED_ARTIST = re.compile(
    r"""\bby\s+[A-Z]\w+|,\s*[A-Z][a-z]+\s+[A-Z][a-z]+
    |(?:^|,|\b(?:art|photo|photograph|photography|shot|picture|image|portrait))\s*by\s+\w+
    |\bby\s+(?!(?:the|an?|my|his|her|its|their|our|some|hand|\w+ing)\b)\w+\s+\w+(?:\s+\w+)?\s*$""",
    re.VERBOSE,
)
_FLAGS = ("busy", "whole", "coloured", "counted")


@dataclass(frozen=True)
class Shown:
    """The content of a prompt, as far as its words tell."""

    kind: str
    """The kind by `lexicon.kind_of`; "" where the first known noun does not begin the prompt."""
    medium: str
    """ "photo" or "art"."""
    setting: str
    """ "open" where no place is named, "outdoors", "indoors", or "dark" in space, water and caves."""
    busy: bool
    """Whether the prompt says more than what the one thing is and looks like."""
    whole: bool
    """Whether the whole body is to be seen: it moves, or wears something below the waist."""
    coloured: bool
    counted: bool


@dataclass(frozen=True)
class Addition:
    """Words for one slot, and why they are added."""

    words: str
    why: str


def additions(text: str, slots: Sequence[str], key: str) -> Iterator[Addition]:
    """Words for these slots that the text, with its quotations masked, lacks; `key` chooses among them."""
    says = aspects(text) | ({"style"} if _NAMED_ARTIST.search(text) else set())
    if says & {"plain", "medium", "style"} or "drawn" in hints(text) or _long(text):
        return
    shown = read(text, photo="photo" in says)
    if shown is None:
        return
    taken = says | ({"light"} if "mood" in says else set()) | ({"medium"} if "photo" in says else set())
    for slot in slots:
        if slot not in taken and (words := _chosen(slot, shown, f"{key}|{slot}")):
            yield Addition(words, f'It names no {slot}: "{words}" suits {_named(shown)}.')


def read(text: str, *, photo: bool = False) -> Shown | None:
    """What a text shows, or None where none of its nouns is known; photo: whether it says that it is one."""
    items = [token for token in tokens(text) if token.start >= style_end(text)]
    place = _subject(items)
    if place is None:
        return None
    named = hints(text)
    settings = [name for name in ("dark", "indoors", "outdoors") if name in named]
    return Shown(
        kind=_kind(items, place),
        medium="art" if "imaginary" in named and not photo else "photo",
        setting=settings[0] if settings else "open",
        busy=_busy(text, items[place]),
        whole="whole" in named,
        coloured=any(item.word in ENGLISH.colours for item in items),
        counted=any(map(_several, items)),
    )


def _busy(text: str, subject: Token) -> bool:
    """Whether words follow the subject that are no style words between commas."""
    first, *others = re.split(r",\s*", text[subject.end :])
    return bool(re.search(r"\w", first)) or any(
        re.search(r"\w", part) and not aspects(part) for part in others
    )


def _long(text: str) -> bool:
    parts = [part for part in re.split(r"[,;|]", text) if part.strip()]
    return len(text.split()) >= ENOUGH or len(parts) >= LISTED


def _subject(items: Sequence[Token]) -> int | None:
    """The place of the first known noun that ends its phrase: "group", "school principal" are none."""
    for index, item in enumerate(items):
        following = items[index + 1] if index + 1 < len(items) else None
        name = index > 1 and item.text[0].isupper()
        if kind_of(item.word) and not name and item.word not in ADJECTIVES and _ends(item, following):
            return index
    return None


def _ends(noun: Token, following: Token | None) -> bool:
    if following is None or (ends_phrase(following, None) and following.word != "of"):
        return True
    if following.word == "of" or kind_of(following.word):
        return False
    several = is_plural(noun.word) or plural(noun.word) == noun.word
    return several or following.word.endswith(("ing", "ed", "s", "ly"))


def _kind(items: Sequence[Token], place: int) -> str:
    """The kind of the subject, if the prompt begins with its phrase; several persons are people."""
    kind = str(kind_of(items[place].word)).replace("imaginary", "animal")
    if kind == "text" and MASK not in {item.text for item in items}:
        kind = "object"
    before = list(dropwhile(_opens, items[:place]))
    if any(ends_phrase(item, None) or _verbal(item.word) for item in before):
        return ""
    others = any(kind_of(item.word) in _PERSONS for item in items[place + 1 :])
    several = is_plural(items[place].word) or any(map(_several, items[:place])) or others
    return "people" if kind == "person" and several else kind


_PERSONS = ("person", "people")
_LEADS = frozenset(
    (
        "the",
        "this",
        "these",
        "my",
        "his",
        "her",
        "some",
        "several",
        "many",
        "there",
        "is",
        "are",
        "in",
        "on",
        "at",
    )
)


def _opens(item: Token) -> bool:
    return item.word in _LEADS or value(item.word) is not None


def _several(item: Token) -> bool:
    return (value(item.word) or 1) > 1


def _verbal(word: str) -> bool:
    return word.endswith("ing") and word not in NOUNS_IN_ING and word not in ADJECTIVES


def _named(shown: Shown) -> str:
    what = shown.kind or "what it shows"
    subject = what if what in ("food", "people", "text", "what it shows") else f"{article(what)} {what}"
    where = {"open": "", "outdoors": " outdoors", "indoors": " indoors", "dark": " in the dark"}
    return subject + where[shown.setting]


def _chosen(slot: str, shown: Shown, key: str) -> str | None:
    fitting = [str(entry["words"]) for entry in _words()[slot] if _fits(entry, shown)]
    if not fitting:
        return None
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return fitting[int.from_bytes(digest) % len(fitting)]


def _fits(entry: Mapping[str, Any], shown: Shown) -> bool:
    """Whether each condition that an entry has holds."""
    return (
        shown.kind in entry.get("kinds", (shown.kind,))
        and shown.setting in entry.get("settings", (shown.setting,))
        and shown.medium in entry.get("media", (shown.medium,))
        and all(entry.get(name, getattr(shown, name)) == getattr(shown, name) for name in _FLAGS)
    )


@cache
def _words() -> Mapping[str, Any]:
    return dict(json.loads(WORDS.read_text(encoding="utf-8")))
