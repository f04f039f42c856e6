"""Options and names of the command line as the previous release called them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rewards.renamed import TODAY, current, warn

OPTIONS = {"--guidance": "--guidance-scale", "--steps": "--num-inference-steps"}
"""Former name of an option -> its name today."""
FREE = ("--prompt", "--prompts", "--output", "-o")
"""Options whose values are free text, and no names."""


def today(words: Sequence[str], known: Callable[[], Sequence[str]]) -> list[str]:
    """The words of a command line with today's names, and a warning for each old one.

    known: gives the options that the command has; an old option is one of a command that has the new one.
    """
    options = [_option(word, known) for word in words]
    return [options[0], *map(_value, options, options[1:])] if options else []


def _option(word: str, known: Callable[[], Sequence[str]]) -> str:
    name, equals, value = word.partition("=")
    if name in OPTIONS and OPTIONS[name] in known():
        warn(name, OPTIONS[name])
        name = OPTIONS[name]
    if equals and name.startswith("--") and name not in FREE:
        value = ",".join(map(current, value.split(",")))
    return name + equals + value


def _value(before: str, word: str) -> str:
    """The word, which is an option's value if an option comes before it."""
    parts = word.split(",")
    if not before.startswith("-") or before in FREE or not TODAY.keys() & set(parts):
        return word
    return ",".join(map(current, parts))
