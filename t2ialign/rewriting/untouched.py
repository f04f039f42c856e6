"""Prompts that the rules leave as they are: markup of user interfaces, other languages than English."""

from __future__ import annotations

import re

_MARKUP = {
    "a weight such as (word:1.2)": r"\([^()\n]*:\s*[-+]?\d*\.?\d+\s*\)|\w::\s*-?\d|\(\s*\([^()]*\)\s*\)"
    r"|\[\s*\[[^\[\]]*\]\s*\]|\w(?:\+\+|--)(?=\s|,|$)",
    "a LoRA or embedding tag": r"<[\w-]+:[^<>]*>|\bembedding:\S|<[\w*-]+>",
    "BREAK or AND": r"\b(?:BREAK|ADDCOMM|ADDROW|ADDCOL)\b|\bAND\b(?=\s+[a-z(])",
    "alternatives such as {a|b} or [a:b:0.5]": r"\{[^{}]*\|[^{}]*\}|\[[^\[\]]*[:|][^\[\]]*\]|__[\w/-]+__",
    "a negative prompt": r"\bnegative[ _]prompt\s*:",
    "an option such as --ar 16:9": r"(?:^|\s)--[a-z]+\b",
    "tags of a tagged model": r"\bscore_\d|\b\d+(?:girl|boy)s?\b|\bmasterpiece\s*,\s*best quality\b",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in _MARKUP.items()}
_NEGATIVE = "a negative prompt"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FOREIGN = _words(
    """ein eine einen einem einer der die das und mit auf ist im nicht zwei drei von ohne une un des les du
    et avec dans sur sans deux trois qui est una unas unos el los las con en y sobre sin dos tres del por
    para il lo gli di della che uno due tre nel sulla uma um com em dois sem na no ao een het van met op
    zonder twee och ett med jest oraz bez dwa"""
)
_ENGLISH = _words(
    """a an the of and with in on at by for to from is are was has have into under over near that this which
    who as its his her no not"""
)
_CHILD = re.compile(
    r"\b(?:child\w*|kids?|teen\w*|toddler|schoolgirl|(?:little|young|small)\s+(?:girl|boy)|1?\d\s+years?\s+old)\b",
    re.I,
)
_BARE = re.compile(
    r"\b(?:nude|naked|bare|topless|undress\w*|lingerie|underwear|sexy|sensual|erotic\w*|nsfw|seduc\w*)\b",
    re.I,
)
_WORD = re.compile(r"[^\W\d_]+")


def why_untouched(prompt: str) -> str | None:
    """What the rules do not read in a prompt, or None for plain English."""
    for name, pattern in _PATTERNS.items():
        if pattern.search(prompt.lower() if name == _NEGATIVE else prompt):
            return f"it has {name}, which its writer set by hand"
    if _CHILD.search(prompt) and _BARE.search(prompt):
        return "it speaks of a child and of nudity, and the rules make nothing of that clearer"
    if _foreign(prompt):
        return "it is not in English, and the rules read nothing else"
    return None


def _foreign(prompt: str) -> bool:
    """Letters of another script by a third, or more function words of other languages than of English."""
    words = [word.lower() for word in _WORD.findall(prompt)]
    letters = "".join(words)
    if sum(ord(letter) > 0x24F for letter in letters) * 3 > len(letters):
        return True
    foreign = sum(word in _FOREIGN for word in words)
    return foreign >= 2 and foreign > 2 * sum(word in _ENGLISH for word in words)
