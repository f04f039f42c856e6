"""English for rules that rewrite prompts: a or an, plural and singular, number words.

Everyday nouns only; what the lists do not hold follows the regular rules.
"""

from __future__ import annotations

import re

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
    "twenty",
)
_VALUES = {word: value for value, word in enumerate(NUMBERS)} | {"a": 1, "an": 1}

# Plural like the singular; a word that only ends in one of the last group behaves the same (goldfish).
_SAME = {
    *("bison", "cod", "elk", "moose", "offspring", "salmon", "series", "sheep", "shrimp", "species"),
    *("squid", "swine", "trout", "wildlife", "luggage", "furniture", "jeans", "pants", "scissors", "shorts"),
    *("trousers", "tights", "pyjamas", "pajamas", "binoculars", "goggles", "headphones", "sunglasses"),
    *("broccoli", "spaghetti", "pasta", "rice", "bread", "sushi", "clothing", "people"),
}
_SAME_ENDINGS = ("fish", "deer", "sheep", "aircraft", "spacecraft", "hovercraft")
_IRREGULAR = {
    **{"ox": "oxen", "die": "dice", "louse": "lice", "quiz": "quizzes", "elf": "elves", "leaf": "leaves"},
    **{"cactus": "cacti", "fungus": "fungi", "larva": "larvae", "oasis": "oases", "axis": "axes"},
    **{"crisis": "crises", "phenomenon": "phenomena", "hoof": "hooves", "dwarf": "dwarves"},
    **{"sheaf": "sheaves", "passerby": "passersby", "mongoose": "mongooses", "olive": "olives"},
    **{word: word + "s" for word in ("ski", "taxi", "kiwi", "bikini", "safari", "tsunami", "menu", "emu")},
}
# Also at the end of a longer word: snowman, bookshelf, grandchild.
_IRREGULAR_ENDINGS = {
    **{"woman": "women", "man": "men", "child": "children", "person": "people", "foot": "feet"},
    **{"tooth": "teeth", "goose": "geese", "mouse": "mice", "wolf": "wolves", "knife": "knives"},
    **{"shelf": "shelves", "wife": "wives", "life": "lives", "loaf": "loaves", "half": "halves"},
    **{"calf": "calves", "thief": "thieves", "scarf": "scarves", "leaf": "leaves"},
}
_REGULAR_MAN = {"human", "german", "roman", "norman", "ottoman", "shaman", "talisman", "caiman"}
_O_ES = {
    *("buffalo", "cargo", "domino", "echo", "hero", "mango", "mosquito", "potato", "tomato", "tornado"),
    *("torpedo", "veto", "volcano"),
}
_HARD_CH = {"stomach", "monarch", "epoch", "patriarch", "loch", "eunuch"}
_SIBILANTS = ("s", "x", "z", "ch", "sh")
# Words whose plural looks like that of a shorter or longer word.
_IE = {
    *("birdie", "brownie", "calorie", "collie", "cookie", "genie", "goalie", "hoodie", "magpie"),
    *("movie", "necktie", "bowtie", "pixie", "prairie", "rookie", "selfie", "smoothie", "zombie", "eyrie"),
}
_CHE = {
    *("ache", "headache", "toothache", "avalanche", "brioche", "cache", "moustache", "mustache", "niche"),
    "quiche",
}
_ENDS_IN_S = {
    *("atlas", "bus", "canvas", "christmas", "gas", "iris", "lens", "pelvis", "tennis", "trellis", "chaos"),
    *("cosmos", "rhinoceros", "albatross", "asparagus", "swiss", "texas", "paris", "yes", "its", "always"),
}
_USE = {"fuse", "muse", "use", "ruse", "excuse", "recluse", "refuse"}

_VOWEL_SOUND = re.compile(r"hour|honest|honou?r|heir|[aeiou]", re.IGNORECASE)
_CONSONANT_SOUND = re.compile(
    r"uni(?!n|mp|d)|us(?=[aeu])|u[kt][aeiu]|uran|uter|eu|ewe|once\b|one\b|one-|ubiq|u-|ufo|ouija",
    re.IGNORECASE,
)
_SPELLED = re.compile(r"[FHLMNRSX](?:[^aeiouyAEIOUY\W]|\b|-)|SUV|SOS|LED")
_EIGHT = re.compile(r"8|1[18](?:\D|$|\d\d(?:\D|$))")


def value(word: str) -> int | None:
    """The number that a word or numeral names, "a" and "an" being 1; None for any other word."""
    return int(word) if word.isdecimal() else _VALUES.get(word.lower())


def article(phrase: str) -> str:
    """ "a" or "an", whichever goes before `phrase`, by how its first word sounds."""
    word = phrase.lstrip("\"'( ")
    if word[:1].isdecimal():
        return "an" if _EIGHT.match(word) else "a"
    if _SPELLED.match(word) and word[:2].upper() == word[:2]:
        return "an"
    vowel = _VOWEL_SOUND.match(word) and not _CONSONANT_SOUND.match(word)
    return "an" if vowel else "a"


def counted(number: int, noun: str, *, article_for_one: bool = True) -> str:
    """`number` of a singular noun: "a cat", "an hour", "two cats", "25 cats"."""
    if number == 1 and article_for_one:
        return f"{article(noun)} {noun}"
    word = NUMBERS[number] if number < len(NUMBERS) else str(number)
    return f"{word} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """The plural of a singular noun; of several words the last is changed, or the one before "of"."""
    before, word, after = _head(noun)
    return before + _cased(word, _plural(word.lower())) + after


def singular(noun: str) -> str:
    """The singular of a plural noun; a word that is no plural comes back as it is."""
    before, word, after = _head(noun)
    return before + _cased(word, _singular(word.lower())) + after


def is_plural(noun: str) -> bool:
    """Whether a noun is a plural that differs from its singular."""
    return singular(noun) != noun


def _head(noun: str) -> tuple[str, str, str]:
    """The part before the word that takes the ending, that word, and the part after it."""
    start, link, rest = noun.partition(" of ")
    before, space, word = start.rpartition(" ")
    return before + space, word, link + rest


def _cased(word: str, changed: str) -> str:
    if len(word) > 1 and word.rstrip("s").isupper():  # SUV, SUVs
        stem = word if word.isupper() else word[:-1]
        return stem + "s" if len(changed) > len(word) else stem
    return changed[:1].upper() + changed[1:] if word[:1].isupper() else changed


def _same(word: str) -> bool:
    return word in _SAME or word.endswith(_SAME_ENDINGS)


def _swap_ending(word: str, endings: dict[str, str]) -> str | None:
    if word in _REGULAR_MAN or word.removesuffix("s") in _REGULAR_MAN:
        return None
    for old, new in endings.items():
        if word.endswith(old):
            return word[: -len(old)] + new
    return None


def _plural(word: str) -> str:
    if _same(word):
        return word
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if changed := _swap_ending(word, _IRREGULAR_ENDINGS):
        return changed
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    if word in _O_ES or (word.endswith(_SIBILANTS) and word not in _HARD_CH):
        return word + "es"
    return word + "s"


def _singular(word: str) -> str:
    if _same(word) and word != "people":
        return word
    for one, many in _IRREGULAR.items():
        if word == many and word != "axes":  # of an axe, in images
            return one
    if changed := _swap_ending(word, {many: one for one, many in _IRREGULAR_ENDINGS.items()}):
        return changed
    if (
        not word.endswith("s")
        or len(word) < 3
        or word[0].isdecimal()
        or word.endswith(("ss", "us", "is"))
        or word in _ENDS_IN_S
    ):
        return word
    return word[:-2] if _takes_es(word) else word[:-3] + "y" if _takes_y(word) else word[:-1]


def _takes_y(word: str) -> bool:
    return word.endswith("ies") and len(word) > 4 and word[:-1] not in _IE


def _takes_es(word: str) -> bool:
    """Whether a plural in -s loses "es": boxes, buses, heroes; not horses, shoes, caches."""
    stem = word[:-2]
    if not word.endswith("es") or word[:-1] in _CHE | _USE or word[:-1].endswith("axe"):
        return False
    if word.endswith("ses"):
        latin = stem.endswith("us") and not stem.endswith(("ous", "aus"))
        return latin or stem in _ENDS_IN_S or stem.endswith("ss")
    return stem in _O_ES or stem.endswith(("x", "ch", "sh", "zz", "tz"))
