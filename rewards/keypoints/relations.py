"""Key points of how things relate: where they lie, what holds, makes up, resembles or exceeds what."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rewards.keypoints import words
from rewards.keypoints.taxonomy import KeyPoint
from rewards.keypoints.text import Reading, Thing
from rewards.keypoints.verbs import listed
from rewards.text.contrast_words import CONVERSE
from rewards.text.english import singular

_NO_PLACE = {"and", "with", "without", "inside", *(link for link in CONVERSE if link.endswith("than"))}
_MORE_PLACES = listed(
    """on_the_top_of on_the_bottom_of on_side_of on_the_side_of at_the_bottom_of at_the_top_of at_the_foot_of
    hidden_by hidden_behind close_to by_the_side_of alongside around surrounded_by between among against
    opposite atop amidst in_the_middle_of in_the_center_of in_the_centre_of at_the_center_of beyond facing
    at_the_edge_of on_the_edge_of adjacent_to hanging_from nestled_in suspended_above floating_above
    at_the_base_of on_either_side_of on_both_sides_of in_the_corner_of at_the_end_of by on upon across
    leaning_against spread_across"""
)
_PLACES = sorted({*CONVERSE}.difference(_NO_PLACE) | _MORE_PLACES, key=len, reverse=True)
_PLACE = re.compile(rf"(?<![\w-])({'|'.join(_PLACES)})\s+(?=\w)", re.IGNORECASE)
_SPOT = r"left|right|top|bottom|cent(?:er|re)|middle|background|foreground|corner|distance|front"
_IN_IMAGE = re.compile(
    r"\b(?:on|at|in|to|from)\s+(?:the\s+)?(?:(?:upper|lower|very|far|top|bottom|exact)[\s-]+)?"
    rf"(?:{_SPOT})(?:[\s-]+(?:left|right|half|side|corner))?"
    r"(?:\s+(?:of|in)\s+(?:the\s+)?(?:picture|image|frame|screen|scene|composition|painting|poster|page))?"
    r"\b(?!\s+of\b)"
    r"|\b(?:side by side|back to back|face to face|cent(?:er|re) stage|in a (?:row|line|circle))\b"
    r"|\b(?:above|below|behind|beneath|underneath|overhead)(?=\s*(?:[.,;]|$))",
    re.IGNORECASE,
)
_MADE_OF = re.compile(
    r"\b(?:(?:made|formed|built|assembled|woven|constructed|crafted|created|carved|shaped|stitched)"
    r"\s+(?:up\s+|entirely\s+|completely\s+)?(?:of|from|out of|by|with)"
    r"|composed\s+(?:entirely\s+)?of|consist(?:s|ing|ed)?\s+of|comprised of|mosaic of|collage of|out of"
    r"|divided into|split into|combination of|fusion of|combin(?:es|ing)|merg(?:es|ing)|form(?:s|ing)?"
    r"|(?:transform|turn)(?:s|ed|ing)? into)(?![\w-])",
    re.IGNORECASE,
)
_INSIDE = re.compile(
    r"\b(?:inside(?:\s+of)?|within|contain(?:s|ed|ing)?|filled with|full of|enclosed (?:in|by)|house[sd]"
    r"|housing|(?:trapped|sealed|encased|imprisoned|wrapped|stored|embedded) in|(?:packed|stuffed) with)"
    r"\s+(?=\w)",
    re.IGNORECASE,
)
_IN = re.compile(r"\b(?:in|into|from|out of)\s+(?=\w)", re.IGNORECASE)
_WITHIN_IT = re.compile(r"\b(?:in|inside) (?:it|them|which)\b|\binside(?=\s*(?:[.,;]|$))", re.IGNORECASE)
_ALIKE = re.compile(
    r"\b(?:in the (?:shape|form) of|shaped (?:like|as)|resembl\w+|look(?:s|ed|ing)? (?:just |exactly )?like"
    r"|similar(?!ly)|alike|reminiscent of|identical|the same|imitat\w+|mimic\w*|the appearance of|akin to"
    r"|as if|as though|modell?ed (?:on|after)|(?<!would )like(?= (?:an?|the|his|her|its|two|[a-z]+s)\b))\b"
    r"|\b[\w-]+-(?:like|shaped|esque)\b",
    re.IGNORECASE,
)
_COMPARED = re.compile(
    r"\b(?:\w{2,}er|more [\w-]+|less [\w-]+|worse)\s+than\b|\bas [\w-]+ as\b(?! possible| if)"
    r"|\b(?:twice|half|(?:two|three|four|five|ten|many|\d+) times) (?:as|the|its)\b|\bcontrast(?:s|ed|ing)?\b"
    r"|\bcompar(?:ed (?:to|with)|ison)\b|\b(?:tall|larg|small|bigg|short|old|young)est\b"
    r"|\bone\b[^.;]{2,60}\b(?:the other|another) (?:one )?(?:is|was|has|looks?|appears?|very|much|half)\b"
    r"|\b(?:much|even|slightly|far) \w+er\b|\bopposite of\b|\bunlike\b"
    r"|\bsame (?:size|height|age|length) as\b",
    re.IGNORECASE,
)


def layout(reading: Reading) -> Iterator[KeyPoint]:
    """The positions of things relative to each other, and within the image."""
    taken: list[range] = []
    for match in _PLACE.finditer(reading.body):
        second = reading.after(match.end())
        first = reading.before(match.start())
        link = " ".join(match[1].lower().split())
        if second is None or not reading.reaches(match.end(), second):
            continue
        if link in _LOOSE and not _is_place(second, link):
            continue
        if first is not None and first.denied:
            continue
        taken.append(range(*match.span()))
        who = first.says(link) if first else f"something is {link}"
        evidence = reading.prompt[first.start if first else match.start() : second.end]
        yield KeyPoint("entity_layout", f"{who} the {second.name}", evidence)
    for match in _IN_IMAGE.finditer(reading.body):
        if any(match.start() in span for span in taken):
            continue
        clause = reading.clause(*match.span())
        yield KeyPoint("entity_layout", f"as stated: {clause}", clause)


_LOOSE = listed("by on over around against between across under facing upon opposite beyond")


def _is_place(thing: Thing, link: str) -> bool:
    """Whether a noun after a loose word is something to lie on; an agent after "by" is none."""
    if thing.head in words.TIMES or thing.head in words.INTANGIBLE or thing.name[:1].isdecimal():
        return False
    return link != "by" or (thing.living in ("", "unknown") and thing.determiner in ("a", "an", "the"))


def made_of(reading: Reading) -> Iterator[tuple[re.Match[str], Thing | None, Thing]]:
    """(match, whole, part) of every statement that something is made of something."""
    for match in _MADE_OF.finditer(reading.body):
        part = reading.after(match.end())
        if part is not None and reading.body[match.end() : part.start].count(" ") < 3:
            yield match, reading.before(match.start()), part


def is_stuff(part: Thing) -> bool:
    """Whether a thing is a plain material: glass, not glass sheets."""
    return part.name.lower() in words.MATERIALS or (part.head in words.MATERIALS and not part.several)


def composition(reading: Reading) -> Iterator[KeyPoint]:
    """Things that are made up of other things; of one plain material is `material`."""
    for match, whole, part in made_of(reading):
        forms = match.group().lower().startswith("form")
        if is_stuff(part) or (forms and part.living == "person"):
            continue
        evidence = reading.prompt[match.start() : part.end]
        passive = match.group().split()[0].lower().endswith(("ed", "made", "built", "woven"))
        who = whole.says(evidence) if whole and passive else f"as stated: {evidence}"
        yield KeyPoint("compositional_relation", who, evidence)


def containment(reading: Reading) -> Iterator[KeyPoint]:
    """Things inside other things; a room or a landscape is no container."""
    for pattern in (_INSIDE, _IN):
        for match in pattern.finditer(reading.body):
            holder = reading.after(match.end())
            if holder is None or not reading.reaches(match.end(), holder) or holder.denied:
                continue
            if pattern is _IN and holder.head not in words.CONTAINERS:
                continue
            first = reading.before(match.start())
            who = f"the {first.name} " if first else ""
            link = match.group().strip().lower()
            evidence = reading.prompt[match.start() : holder.end]
            yield KeyPoint("containment_relation", f"{who}{link} the {holder.name}", evidence)
    for match in _WITHIN_IT.finditer(reading.body):
        clause = reading.clause(*match.span())
        yield KeyPoint("containment_relation", f"one thing is inside another: {clause}", clause)


def similarity(reading: Reading) -> Iterator[KeyPoint]:
    """Things with the shape or look of others."""
    for match in _ALIKE.finditer(reading.body):
        clause = reading.clause(*match.span())
        yield KeyPoint("similarity_relation", f"one thing looks like another: {clause}", clause)


def comparison(reading: Reading) -> Iterator[KeyPoint]:
    """Comparisons: things that exceed or fall short of others, or are set against them."""
    for match in _COMPARED.finditer(reading.body):
        if singular(match.group().lower().split()[0]) in ("rather", "other"):
            continue
        clause = reading.clause(*match.span())
        yield KeyPoint("comparative_relation", f"compared as stated: {clause}", clause)
