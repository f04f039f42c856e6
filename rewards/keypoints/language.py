"""Key points of wording and knowledge: negation, pronouns, style, named things, the impossible, texts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rewards.keypoints import words
from rewards.keypoints.taxonomy import KeyPoint
from rewards.keypoints.text import Reading, Thing, governs
from rewards.keypoints.verbs import HUMAN, listed
from rewards.text.contrast_text import Token, style_noun
from rewards.text.contrast_words import MEDIA, NEGATORS

_NOT = re.compile(
    r"(?<![\w-])(?:(?:nothing|nobody|none|no[\s-]one|anything)\s+but|no[\s-]one"
    rf"|{'|'.join(sorted(NEGATORS))}|neither|\w+n't|cannot|lacks?|lacking|devoid of|free of"
    r"|except(?: for)?|absence of|\w+-free)(?![\w-])(?! only)",
    re.IGNORECASE,
)
_PRONOUN = re.compile(
    r"(?<![\w-])(it|its|he|his|him|she|her|hers|they|their|them|himself|herself|itself|themselves|the former"
    r"|the latter|the other|one of them|both of them)(?![\w-])(?!'s (?:raining|snowing))",
    re.IGNORECASE,
)
_MEDIA = sorted(set(MEDIA) - {"picture", "image"})
_BARE = re.compile(
    r"(?:(?:please|create|draw|design|generate|make|show|me|this|the|an?)\s+)*"
    r"(?:photo|photograph|picture|image)s?(?:\s+(?:shows|presents|depicts))?",
    re.IGNORECASE,
)
"""Words for a photo and nothing more, which every image is."""
_PEOPLE_ONLY = listed("he his him she her hers himself herself")
_NOUN = "|".join(_MEDIA)
_MEDIUM = re.compile(
    rf"\b(?:create|draw|design|generat\w+|make|entire|whole|please|this)\b[^.:,]{{0,40}}?\b({_NOUN})\b"
    rf"|,\s*(?:[\w-]+\s+){{0,3}}({_NOUN})\s*\.?$|\bthe ({_NOUN}) (?:shows|presents|depicts)\b",
    re.IGNORECASE,
)
_STYLED = re.compile(
    r"\b((?:[\w'-]+\s+){0,2}?[\w'-]+[\s-]style[ds]?)\b(?! of)|\b(?:in the )?style of ((?:[\w'-]+\s*){1,4})",
    re.IGNORECASE,
)
_IMPOSSIBLE = re.compile(
    r"\b(?:upside[- ]down|anti-?gravity|zero gravity|def(?:y|ies|ying) gravity|impossible|instead of"
    r"|rather than|anthropomorphic|biomechanical|half[- ]\w+,? half|hybrid|backwards?|counter-?clockwise"
    r"|reversed?|inverted|levitat\w+|weightless|walk(?:s|ing)? on water|suspended in"
    r"|made of (?:stars?|star dust|stardust|clouds?|light|water|fire|smoke|lightning|candy|fog)"
    r"|float(?:s|ing|ed)? (?:in|above|on) the (?:sky|air|clouds?|universe|space|sea of)"
    r"|flow(?:s|ing)? (?:up|backward)\w*|grow(?:s|ing)? (?:out of|from) (?:its|his|her|the)|casts? no shadow"
    r"|alien|magic|magical|with (?:\w+ ){0,2}wings|dragons?)\b",
    re.IGNORECASE,
)
_FLIES = re.compile(r"\b(?:floating|flying|suspended|hovering|floats|flies|hangs|soaring)\b", re.IGNORECASE)
_MAY_FLY = listed(
    """bird airplane plane kite balloon helicopter rocket butterfly bee bat dragon eagle owl cloud drone
    fairy angel spaceship leaf petal superhero dragonfly hawk seagull parrot crow pigeon dove duck goose
    swan insect flag"""
)
_LIVING_OF = re.compile(
    r"\b(?:made|composed|formed|built|consisting)\s+(?:entirely\s+)?(?:of|from|out of|by)\b"
)
_NEVER_OF = listed("city castle forest body mountain island wing planet ship train cloud moon sun robot")
"""Things, besides living ones, that are not made of other things."""
_CUE = re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(words.TEXT_CUES))})(?![\w-])", re.IGNORECASE)
_FONT = re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(words.FONT_WORDS))})(?![\w-])", re.IGNORECASE)
_SPOT = re.compile(
    r"\b(?:at|on|in|above|below|beneath|under|across|along)\s+(?:the|its|his|her|each|a)\s+"
    r"(?:\w+\s+){0,2}?(?:top|bottom|left|right|cent(?:er|re)|middle|corner|side|front|back|edge"
    r"|background|row|line|wall|cover|sign|board|card|chest)\b"
    r"|\b(?:above|below|beneath|underneath|next to|around|arranged|in (?:two|three) (?:lines|rows))\b",
    re.IGNORECASE,
)


def negation(reading: Reading) -> Iterator[KeyPoint]:
    """Statements that rule something out."""
    for match in _NOT.finditer(reading.body):
        word = " ".join(match.group().lower().split())
        only = word.endswith(" but") and word != "anything but"
        stop = r"[.;:!?]" if only else r"[.,;:!?]|\b(?:and|but)\b"
        rest = re.split(stop, reading.body[match.end() :], maxsplit=1)[0]
        clause = " ".join((match.group() + rest).split())
        thing = reading.after(match.end())
        what = f"it holds that: {clause}"
        if thing and reading.reaches(match.end(), thing) and _absent(word, thing):
            what = f"there {'are' if thing.several else 'is'} no {thing.name}"
        yield KeyPoint("negation", what, clause)


def _absent(word: str, thing: Thing) -> bool:
    """Whether a word says that the thing after it is not there; not so "anything but ordinary"."""
    named = thing.several or thing.determiner not in ("", "anything but")
    return word in ("no", "without") or (word == "anything but" and named)


def pronouns(reading: Reading) -> Iterator[KeyPoint]:
    """Pronouns, each with the thing of the prompt that it stands for."""
    for match in _PRONOUN.finditer(reading.body):
        word = match.group().lower()
        stands_for = _antecedent(reading, word, match.start())
        if stands_for is None:
            continue
        clause = reading.clause(*match.span())
        yield KeyPoint("pronoun_resolution", f'"{word}" is the {stands_for.name} in: {clause}', match.group())


def _antecedent(reading: Reading, word: str, place: int) -> Thing | None:
    earlier = [thing for thing in reading.things if thing.end <= place and thing.name]
    if word in _PEOPLE_ONLY:
        fit = [t for t in earlier if t.living in ("person", "animal") or t.name[:1].isupper()]
        return next(iter(fit or earlier), None)
    if word in ("they", "their", "them", "themselves", "one of them"):
        fit = [t for t in earlier if t.several] or [t for t in earlier if t.living == "person"]
    else:
        fit = [t for t in earlier if not t.several and t.living != "person"]
    return next(iter(fit or earlier), None)


def style(reading: Reading) -> Iterator[KeyPoint]:
    """The style or medium; "a photo of" is none, "a polaroid photo of" is one."""
    opening = style_noun(reading.body)
    medium = reading.prompt[slice(*opening[0])] if opening else ""
    if medium and not _BARE.fullmatch(medium):
        yield KeyPoint("artistic_style", f"the picture is a {medium}", medium)
    for match in _STYLED.finditer(reading.body):
        words_of_style = " ".join((match[1] or match[2]).split())
        yield KeyPoint("artistic_style", f"the style is: {words_of_style}", " ".join(match.group().split()))
    for match in _MEDIUM.finditer(reading.body):
        words_of_style = match[1] or match[2] or match[3]
        if not _BARE.fullmatch(match.group()):
            yield KeyPoint("artistic_style", f"the picture is a {words_of_style.lower()}", words_of_style)
    for word, evidence in _phrases(reading, words.STYLES, opening[0][1] if opening else 0):
        if not _is_handled(reading, evidence):
            yield KeyPoint("artistic_style", f"the style is: {word}", evidence)


def _is_handled(reading: Reading, evidence: str) -> bool:
    """Whether somebody watches, holds or looks at it: "watching a movie" is no style."""
    whole = next(
        (thing for thing in reading.things if evidence in reading.prompt[thing.start : thing.end]), None
    )
    return whole is not None and (governs(whole.before) or whole.before in ("at", "for", "about", "to"))


def knowledge(reading: Reading) -> Iterator[KeyPoint]:
    """Names of people, places and works, and words of a small list, that must be drawn as they are known."""
    known = words.ALL_THINGS | words.ANIMALS | words.PEOPLE
    names = [name for name in _names(reading) if name.lower() not in known]
    for name in names:
        yield KeyPoint("knowledge_application", f"{name} is drawn as it is known", name)
    for word, evidence in _phrases(reading, words.KNOWLEDGE, 0):
        if not any(word in name.lower() for name in names):
            yield KeyPoint("knowledge_application", f"{word} is drawn as it is known", evidence)


def _names(reading: Reading) -> list[str]:
    """Runs of capitalised words that do not begin a sentence."""
    items, names = reading.items, list[str]()
    run: list[Token] = []
    capital = [t for t in items if t.text[0].isupper()]
    if len(capital) > max(3, len(items) // 2):
        return []
    for index, token in enumerate(items):
        begins = index == 0 or items[index - 1].text in ".!?:;"
        name = token.text[0].isupper() and len(token.text) > 1 and not (begins and not run)
        if name and token.text not in _NO_NAMES and token.word not in words.STYLES:
            run.append(token)
            continue
        if run:
            names.append(" ".join(t.text for t in run))
        run = []
    return names + ([" ".join(t.text for t in run)] if run else [])


_NO_NAMES = listed(
    """App UI Logo TV I Q-version PPT LOGO IP VR AR LED English The A An In 3D 2D Please CG SLR"""
)


def counterfactual(reading: Reading) -> Iterator[KeyPoint]:
    """Impossible things: animals that act like people, heavy things that fly, and what is stated outright."""
    for match in _IMPOSSIBLE.finditer(reading.body):
        clause = reading.clause(*match.span())
        yield KeyPoint("counterfactual", f"shown as stated: {clause}", clause)
    for verb in reading.verbs:
        who = reading.subject(verb)
        if (
            who is not None
            and who.living == "animal"
            and verb.lemma in HUMAN
            and verb.lemma not in _BEASTS_TOO
        ):
            action = reading.prompt[who.start : verb.end] + " " + reading.following(verb)
            yield KeyPoint("counterfactual", f"shown as stated: {action}", action)
    for match in _FLIES.finditer(reading.body):
        who = _flier(reading, match.start())
        heavy = who is not None and who.head not in _MAY_FLY and who.living in ("animal", "")
        if who is not None and heavy:
            yield KeyPoint("counterfactual", f"the {who.name}: {match.group().lower()}", match.group())
    for match in _LIVING_OF.finditer(reading.body):
        who = reading.before(match.start())
        if who is not None and (who.living in ("animal", "person") or who.head in _NEVER_OF):
            clause = reading.clause(*match.span())
            yield KeyPoint("counterfactual", f"shown as stated: {clause}", clause)


def _flier(reading: Reading, place: int) -> Thing | None:
    """The thing that a word such as "flying" is within, or that is before it."""
    within = next((thing for thing in reading.things if thing.start <= place < thing.end), None)
    return within or reading.before(place)


_BEASTS_TOO = listed(
    """study operate draw perform surf hold drink compare think meditate play guard photograph dance sing
    work shop serve ride"""
)


def text(reading: Reading) -> Iterator[KeyPoint]:
    """Quoted words that are to be read in the image."""
    if reading.quotes and (_CUE.search(reading.body) or any(" " in quote for quote in reading.quotes)):
        for quote in reading.quotes:
            yield KeyPoint("text_rendering", f'the text "{quote}" can be read, letter for letter', quote)


def text_layout(reading: Reading) -> Iterator[KeyPoint]:
    """The position and the look of written words."""
    if not reading.quotes:
        return
    for sentence in re.finditer(r"[^.!?;]+", reading.body):
        if not _CUE.search(sentence.group()) and '"' not in reading.prompt[slice(*sentence.span())]:
            continue
        for match in [*_FONT.finditer(sentence.group()), *_SPOT.finditer(sentence.group())]:
            words_as_stated = " ".join(reading.prompt[slice(*sentence.span())].split())
            yield KeyPoint(
                "text_layout", f"the words lie and look as stated: {words_as_stated}", match.group()
            )
            break


def _phrases(reading: Reading, terms: frozenset[str], start: int) -> Iterator[tuple[str, str]]:
    """(word of the list, as written) for each that occurs, longer ones first and none within another."""
    taken: list[range] = []
    for word in sorted(terms, key=lambda w: (-len(w), w)):
        for match in re.finditer(rf"(?<![\w-]){re.escape(word)}(?!\w)", reading.body[start:], re.IGNORECASE):
            if not any(match.start() in span for span in taken):
                taken.append(range(*match.span()))
                yield word, match.group()
