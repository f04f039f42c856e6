"""Key points of what bodies, hands and pairs of things do, and of states and faces."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rewards.keypoints import words
from rewards.keypoints.taxonomy import KeyPoint
from rewards.keypoints.text import Reading, Thing, Verb
from rewards.keypoints.verbs import (
    ANIMAL,
    BODY,
    CONTACT,
    HAND,
    HUMAN,
    LOOKING,
    NEEDS_WITH,
    POSES,
    PURSUITS,
    WATCHING,
    listed,
)

_HANDS = re.compile(
    r"\b(?:hands?|fingers?|fists?|thumbs?|palms?|fingertips?|paws?|claws|gestur\w+)\b", re.IGNORECASE
)
_SEEING = listed("at up toward towards into over out through down back for around")
_TOUCH_LINKS = listed("with on into at off against onto to up down over through across from")
_ROLE = re.compile(
    r"\b(?:wearing|wears|wore|dressed|anthropomorphic|cartoon|detective|engineer|humanoid|robot)\b",
    re.IGNORECASE,
)
_EYES = re.compile(
    r"\b(?:gaz(?:e|ing) (?:up )?(?:at|into)|eye contact|eyes? (?:fixed|on)|looking at each other)\b"
)


def body(reading: Reading) -> Iterator[KeyPoint]:
    """Poses and movements of people and of animals that play people."""
    for verb in reading.verbs:
        who = reading.subject(verb)
        if verb.lemma in BODY and _acts(reading, who, verb) and not _plays(reading, verb):
            yield _doing("full_body_action", reading, verb, who)


def animal(reading: Reading) -> Iterator[KeyPoint]:
    """Actions of animals, whatever kind of verb names them."""
    for verb in reading.verbs:
        who = reading.subject(verb)
        known = verb.lemma in BODY | ANIMAL | HAND | CONTACT | LOOKING | WATCHING | HUMAN
        if who is not None and who.living == "animal" and known:
            yield _doing("animal_action", reading, verb, who)


def hand(reading: Reading) -> Iterator[KeyPoint]:
    """Grips, gestures and tools, and whatever is done with hands that are named."""
    for verb in reading.verbs:
        who = reading.subject(verb)
        able = _human(reading, who) and (
            (verb.lemma in HAND and _used(reading, verb)) or _plays(reading, verb)
        )
        named = _HANDS.search(reading.following(verb)) is not None or (who and _HANDS.search(who.name))
        if able or named:
            yield _doing("hand_action", reading, verb, who)


def contact(reading: Reading) -> Iterator[KeyPoint]:
    """Things that touch or handle what follows the verb."""
    for verb in reading.verbs:
        link = reading.link(verb)
        played = verb.lemma in NEEDS_WITH and link == "with"
        if verb.lemma not in CONTACT and not played and not _plays(reading, verb):
            continue
        what = reading.object(verb, *_TOUCH_LINKS)
        if what is None or (
            verb.lemma in NEEDS_WITH - {"write"} and not played and not _plays(reading, verb)
        ):
            continue
        if played and what.living == "person":
            continue
        yield _doing("contact_interaction", reading, verb, reading.subject(verb))


def without_contact(reading: Reading) -> Iterator[KeyPoint]:
    """Looking, pointing, talking, chasing: relations across a distance."""
    for verb in reading.verbs:
        link = reading.link(verb)
        looks = verb.lemma in LOOKING and (link in _SEEING or link in ("to", "with"))
        pursues = verb.lemma in PURSUITS and link in ("after", "past", "across")
        watches = verb.lemma in WATCHING - PURSUITS and reading.object(verb, "to", "with", "at") is not None
        if (looks or watches or pursues) and _minds(reading.subject(verb)):
            yield _doing("non_contact_interaction", reading, verb, reading.subject(verb))
    for match in _EYES.finditer(reading.body):
        clause = reading.clause(*match.span())
        yield KeyPoint("non_contact_interaction", f"as stated: {clause}", clause)


def state(reading: Reading) -> Iterator[KeyPoint]:
    """Conditions of things, stated as adjectives or as processes."""
    for thing in reading.things:
        for word in thing.of("state") if not thing.denied else ():
            yield KeyPoint("state", thing.says(word), f"{word} {thing.name}")
    for verb in reading.verbs:
        who = reading.subject(verb)
        if who is not None and not who.denied and _undergoes(reading, who, verb):
            yield _doing("state", reading, verb, who)
    acting = {verb.start for verb in reading.verbs}
    for token in reading.items:
        if token.word in words.STATES and token.start not in acting and not _inside(reading, token.start):
            clause = reading.clause(*token.span)
            yield KeyPoint("state", f"in the state stated: {clause}", token.text)


def expression(reading: Reading) -> Iterator[KeyPoint]:
    """Expressions of faces."""
    for token in reading.items:
        if token.word in words.FEELINGS:
            clause = reading.clause(*token.span)
            yield KeyPoint("expression", f"the face or the bearing shows it: {clause}", token.text)


def _doing(kind: str, reading: Reading, verb: Verb, who: Thing | None) -> KeyPoint:
    details = reading.following(verb)
    action = " ".join(f"{reading.prompt[verb.start : verb.end]} {details}".split())
    return KeyPoint(kind, f"the {who.name}: {action}" if who else f"as stated: {action}", action)


def _human(reading: Reading, who: Thing | None) -> bool:
    """Whether somebody with hands: people, characters, what the lists do not know, nobody named."""
    if who is None or who.living == "person" or (who.living == "unknown" and _named(who)):
        return True
    return who.living == "animal" and _ROLE.search(reading.body) is not None


def _minds(who: Thing | None) -> bool:
    """Whether somebody or something that can turn to others; colours and surfaces cannot."""
    return who is None or (who.living != "" and who.head not in words.INTANGIBLE)


def _named(who: Thing) -> bool:
    """Whether a name of somebody: Einstein."""
    return who.name[:1].isupper() and who.start > 0


def _acts(reading: Reading, who: Thing | None, verb: Verb) -> bool:
    """Whether a whole-body verb has a body; poses of what the lists do not know are those of things."""
    if who is None or who.living == "unknown":
        return who is None or _named(who) or (verb.lemma not in POSES and who.head not in words.INTANGIBLE)
    return _human(reading, who)


def _used(reading: Reading, verb: Verb) -> bool:
    """Whether a hand's verb has something to handle, or is a gesture."""
    return verb.lemma in ("wave", "clap", "write", "draw", "paint", "knit", "sew", "type", "conduct") or (
        reading.object(verb, *_TOUCH_LINKS) is not None
    )


def _plays(reading: Reading, verb: Verb) -> bool:
    """Whether an instrument is played: with hands, not with the whole body."""
    what = reading.object(verb, "on", "with")
    return (
        verb.lemma == "play"
        and what is not None
        and bool({what.head, *what.name.split()} & words.INSTRUMENTS)
    )


def _undergoes(reading: Reading, who: Thing, verb: Verb) -> bool:
    """A sleeper, or a thing that floats, hangs, flows or glows by itself."""
    form = reading.prompt[verb.start : verb.end].lower()
    if verb.lemma == "sleep":
        return form != "sleep"
    return who.living in ("", "unknown") and (verb.lemma in _THINGS_DO or form in words.STATES)


_THINGS_DO = listed(
    """float hang flow glow burn melt drip shine bloom blow sway rustle sparkle fall flutter drift rotate
    spin hover soar suspend sail sleep roll swing flicker"""
)


def _inside(reading: Reading, place: int) -> bool:
    return any(thing.start <= place < thing.end for thing in reading.things)
