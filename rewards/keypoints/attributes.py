"""Key points of what things are like: how many, how large, of what, and which thing has which look."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rewards.keypoints import words
from rewards.keypoints.relations import is_stuff, made_of
from rewards.keypoints.taxonomy import KeyPoint
from rewards.keypoints.text import Attribute, Reading, Thing
from rewards.text.english import counted, singular

_ALL = re.compile(
    r"\b(both|all(?! over| around| kinds| sorts| of a sudden| the way)|each(?! other)|every|identical"
    r"|matching|the same|consistent(?:ly)?|uniform(?:ly)?|entirely|completely|the (?:entire|whole))\b",
    re.IGNORECASE,
)
_AS_LARGE = re.compile(
    rf"\bas (?:{'|'.join(sorted(words.SIZES))}) as\b"
    r"|\b(?:different|same|various) sizes?\b",
    re.IGNORECASE,
)


def counting(reading: Reading) -> Iterator[KeyPoint]:
    """Exact numbers of things, from two on, with their looks where several have one name.

    The published kind begins at three.
    """
    looks: dict[str, set[tuple[Attribute, ...]]] = {}
    for thing in reading.things:
        if thing.attributes:
            looks.setdefault(singular(thing.name), set()).add(thing.attributes)
    for thing in reading.things:
        if thing.count < 2 or thing.denied or not thing.name:
            continue
        noun = singular(thing.name)
        if len(looks.get(noun, ())) > 1:
            noun = " ".join([*(attribute.word for attribute in thing.attributes), noun])
        evidence = f"{thing.determiner} {reading.prompt[thing.start : thing.end]}"
        yield KeyPoint("counting", f"there are exactly {counted(thing.count, noun)}", evidence)


def size(reading: Reading) -> Iterator[KeyPoint]:
    """Sizes of things that have one: no long day, no giant panda, no little boy."""
    for thing in _solid(reading):
        for word in thing.of("size"):
            person = word == "little" and thing.living == "person"
            if not person and (word, thing.head) not in (("giant", "panda"), ("short", "film")):
                yield KeyPoint("size", thing.says(word), f"{word} {thing.name}")
    for match in _AS_LARGE.finditer(reading.body):
        clause = reading.clause(*match.span())
        yield KeyPoint("size", f"as large as stated: {clause}", match.group())


def material(reading: Reading) -> Iterator[KeyPoint]:
    """Materials and textures; the colour and the pattern too where a prompt gives only one thing a look."""
    for thing in _solid(reading):
        for word in thing.of("material"):
            yield KeyPoint("material", thing.says(_stuff(word)), f"{word} {thing.name}")
        for word in thing.of("texture"):
            yield KeyPoint("material", thing.says(word), f"{word} {thing.name}")
    for match, whole, part in made_of(reading):
        if is_stuff(part) or part.of("material"):
            evidence = reading.prompt[match.start() : part.end]
            what = whole.says(evidence) if whole else f"something is {evidence}"
            yield KeyPoint("material", what, evidence)
    sole = _alone(reading)
    if sole is not None:
        for word in sole.of("colour", "pattern"):
            yield KeyPoint("material", sole.says(word), f"{word} {sole.name}")


def binding(reading: Reading) -> Iterator[KeyPoint]:
    """The attributes of each thing where several have some: each its own, and none of another's."""
    described = _described(reading)
    if len({thing.name.lower() for thing in described}) < 2 and not _mixed(described):
        return
    for thing in described:
        for word in dict.fromkeys(attribute.word for attribute in thing.attributes):
            yield KeyPoint("cross_entity_binding", thing.says(word), f"{word} {thing.name}")


def shape(reading: Reading) -> Iterator[KeyPoint]:
    """The shape of the only thing with a look; among several it is bound with their other attributes."""
    sole = _alone(reading)
    if sole is not None:
        for word in sole.of("shape"):
            yield KeyPoint("similarity_relation", sole.says(word), f"{word} {sole.name}")


def consistency(reading: Reading) -> Iterator[KeyPoint]:
    """Statements about both, all or each of several things."""
    for match in _ALL.finditer(reading.body):
        clause = reading.clause(*match.span())
        yield KeyPoint("attribute_consistency", f"it is true of each: {clause}", clause)


def _stuff(word: str) -> str:
    """The words for a material in a statement about a thing: "wooden", "made of glass"."""
    return word if word.endswith(("en", "ic", "ed", "line")) and word != "linen" else f"made of {word}"


def _solid(reading: Reading) -> list[Thing]:
    """Things that are there and have a surface."""
    return [t for t in reading.things if t.name and not t.denied and t.head not in words.INTANGIBLE]


def _described(reading: Reading) -> list[Thing]:
    """Things that are there and have some attribute."""
    return [thing for thing in reading.things if thing.name and not thing.denied and thing.attributes]


def _mixed(described: list[Thing]) -> bool:
    """Whether things of one name differ: a black king and a white king."""
    return len({thing.attributes for thing in described}) > 1


def _alone(reading: Reading) -> Thing | None:
    """The only thing of the prompt that has a look, or None where several or none have one."""
    described = _described(reading)
    if not described or len({t.name.lower() for t in described}) > 1 or _mixed(described):
        return None
    return described[0]
