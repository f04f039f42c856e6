"""The parts of a prompt that the key-point rules use: things with attributes, verbs and quoted words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from rewards.keypoints import words
from rewards.keypoints.verbs import lemma
from rewards.keypoints.words import DENIERS, DETERMINERS, PREPOSITIONS, number
from rewards.text.contrast_text import Token
from rewards.text.contrast_words import NOUNS_IN_ING
from rewards.text.english import is_plural, singular


@dataclass(frozen=True)
class Attribute:
    """A word or two about a thing and the kind of attribute, a key of `ATTRIBUTES`."""

    word: str
    kind: str


@dataclass(frozen=True)
class Thing:
    """A noun phrase: its noun without attributes, what is said of it, and where it lies in the prompt."""

    name: str
    attributes: tuple[Attribute, ...]
    start: int
    end: int
    before: str = ""
    """The word in front of it and its determiner, in lower case."""
    determiner: str = ""
    count: int = 1

    @property
    def head(self) -> str:
        """The last noun, singular, in lower case."""
        return singular(self.name.split(" ")[-1]).lower().removesuffix("'s")

    @property
    def denied(self) -> bool:
        """Whether the prompt says that it is absent."""
        return self.determiner in DENIERS or self.before in DENIERS

    @property
    def several(self) -> bool:
        """Whether its verb is a plural's."""
        return self.count > 1 or is_plural(self.name)

    def says(self, what: str) -> str:
        """ "the dogs are red" """
        return f"the {self.name} {'are' if self.several else 'is'} {what}"

    def of(self, *kinds: str) -> list[str]:
        """The attributes of the given kinds."""
        return [attribute.word for attribute in self.attributes if attribute.kind in kinds]

    @cached_property
    def living(self) -> str:
        """ "person", "animal", "" for a thing, "unknown" for what the lists lack."""
        if self.head in words.PEOPLE or self.name.lower() in words.PEOPLE:
            return "person"
        if self.head in words.ANIMALS:
            return "animal"
        human = self.head.endswith(("er", "or", "ist", "ian", "man")) and self.head not in words.NOT_PEOPLE
        if human and self.head not in words.ALL_THINGS:
            return "person"
        return "" if self.head in words.ALL_THINGS else "unknown"


@dataclass(frozen=True)
class Verb:
    """A verb of the lists: its lemma, its place among the tokens and in the prompt."""

    lemma: str
    index: int
    start: int
    end: int


@dataclass(frozen=True)
class Reading:
    """A prompt, read: `body` is the prompt with quoted words blanked out, of the same length."""

    prompt: str
    body: str
    quotes: tuple[str, ...]
    items: tuple[Token, ...]
    things: tuple[Thing, ...] = ()
    verbs: tuple[Verb, ...] = ()

    def before(self, place: int) -> Thing | None:
        """The last thing that ends at or before a place, in the same sentence."""
        things = [t for t in self.things if t.end <= place and not self._parted(t.end, place)]
        return things[-1] if things else None

    def after(self, place: int) -> Thing | None:
        """The first thing that starts at or after a place, in the same sentence."""
        things = (t for t in self.things if t.start >= place and not self._parted(place, t.start))
        return next(things, None)

    def following(self, verb: Verb) -> str:
        """The lower-case text after a verb, to the end of its clause."""
        stop = re.search(r"[.,;:!?]|\bwhile\b|\b(?:and|as)\s+\w+(?:ing|s|ed)\b", self.body[verb.end :])
        return self.body[verb.end :][: stop.start() if stop else None].strip().lower()

    def subject(self, verb: Verb) -> Thing | None:
        """The subject of a verb: the nearest thing that nothing else governs; a pronoun looks back."""
        earlier = [t for t in self.things if t.end <= verb.start and not self._parted(t.end, verb.start)]
        if not earlier:
            living = [t for t in self.things if t.end <= verb.start and t.living in ("person", "animal")]
            return living[0] if living else None
        free = [t for t, last in zip(earlier, [None, *earlier], strict=False) if _leads(t, last)] or earlier
        nearest = free[-1]
        if nearest.determiner in ("its", "their", "his", "her") and free[0].living in ("person", "animal"):
            return free[0]
        between = self.body[nearest.end : verb.start].split()
        joined = nearest.before == "and" and nearest is not free[0]
        if joined and any(word in ("and", "while") for word in between):
            free = [t for t in free if t.before != "and"] or free
        return free[-1]

    def object(self, verb: Verb, *links: str) -> Thing | None:
        """The object of a verb: the next thing, at once or after one of the words `links`."""
        thing = self.after(verb.end)
        if thing is None:
            return None
        between = " ".join(self.body[verb.end : thing.start].lower().split()).removesuffix(thing.determiner)
        free = set(re.findall(r"[\w']+|[^\w\s]", between)) - DETERMINERS - set(links)
        free = {word for word in free if number(word) is None and not word.endswith("ly")}
        return None if free else thing

    def link(self, verb: Verb) -> str:
        """The first word after a verb that is no adverb, in lower case."""
        return next((word for word in self.following(verb).split() if not word.endswith("ly")), "")

    def reaches(self, place: int, thing: Thing) -> bool:
        """Whether only a determiner or a number lies between a place and a thing."""
        between = " ".join(self.body[place : thing.start].lower().split())
        return not between or between in DETERMINERS or number(between) is not None

    def clause(self, start: int, end: int) -> str:
        """The words of the prompt between the nearest commas or full stops around a span."""
        marks = [m.end() for m in re.finditer(r"[.,;:!?](?=\s|$)", self.body[:start])]
        stop = re.search(r"[.,;:!?](?=\s|$)", self.body[end:])
        return self.prompt[marks[-1] if marks else 0 : end + stop.start() if stop else None].strip()

    def _parted(self, start: int, end: int) -> bool:
        return re.search(r"[.!?;](?:\s|$)", self.body[start:end]) is not None


def governs(word: str) -> bool:
    """Whether the thing after a word is its object."""
    return lemma(word) is not None or (word.endswith("ing") and word not in NOUNS_IN_ING)


def _leads(thing: Thing, last: Thing | None) -> bool:
    """Whether nothing governs a thing; of "a group of birds" the birds lead."""
    if thing.before == "of" and last is not None and last.head in words.GROUPS:
        return True
    return thing.before not in PREPOSITIONS and not governs(thing.before)
