"""The words that negations are read by: negators, idioms, statements of absence, words of one meaning."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NEGATOR = (
    r"no(?!\.\s?\d)|not|never|without|nor|neither|none|nothing|nowhere|cannot|\w+n['\u2019]t|zero|"
    r"(?:free|devoid|absence)\s+of|free\s+from|anything\s+but|lack(?:s|ed|ing)?(?:\s+of)?"
)
"""The negators of a prompt, as a pattern; "-less", "-free" and "no one" are patterns of their own."""

SOFT = (
    r"instead\s+of|rather\s+than|except(?:\s+for)?|other\s+than|excluding|missing|absent|gone|vanished|avoid\w*|"
    r"refus\w+|ignor\w+|(?:unable|inability)\s+to|replac\w+|invisible|hidden"
)
"""Statements of absence in a rewrite, too; a prompt that has these loses little without them."""

IDIOM = (
    r"not\s+(?:only|just|merely|simply|far|unlike|least|quite|to\s+mention)|no\s+(?:less|fewer|matter|doubt|time)|"
    r"nothing\s+but|(?:can['\u2019]t|cannot)\s+help|zero[\s-]+gravity"
)
"""Negators that deny nothing."""

FIGURATIVE = _words(
    """count end time seam weight stain un b wire bound bottom price flaw effort reck ruth rest home help hope
    care harm tire fear list relent need limit breath speech meaning use worth shame age form cease change
    depth fault point power regard self sense soul spot thought tact title cord neverthe nonethe mind nerve
    peer guile thank doubt number"""
)
"""Stems whose "-less" is a manner of speaking, or a word of its own, which a rewrite may say otherwise."""

GENERIC = _words(
    """any other single trace traces sign signs visible hint longer more all entire entirely whole even also
    such being might may should will would too quite only just still yet really fully completely absolutely
    them him me us anything thing things one two someone something anyone left right seen shown present wear
    wearing wears worn show showing shows make makes made hold holding contain contains containing use using
    used additional"""
)
"""Words of a negation that do not tell what is absent."""

SAME = tuple(
    tuple(group.split())
    for group in (
        "people person human crew tourist visitor passenger crowd soul man figure pedestrian someone guest",
        "ship boat vessel sailboat",
        "sound noise music",
        "text letter lettering word inscription writing caption watermark",
        "expression emotion feature",
        "fear afraid scared frightened",
        "sad melancholy melancholic sorrow",
        "beard stubble whisker",
        "car vehicle automobile traffic",
        "child kid",
        "picture image photo",
        "garment clothes clothing",
        "light lit illuminated",
    )
)
"""Words that name the same absent thing."""

_EMPTY = ("empty", "deserted", "vacant", "unoccupied", "uninhabited", "abandoned")
ABSENCE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_EMPTY, ("people", "water", "content")),
    **dict.fromkeys(("open", "ajar", "unlocked"), ("closed", "shut", "locked")),
    **dict.fromkeys(("sad", "gloomy", "frowning", "expressionless"), ("smile", "happy")),
    **dict.fromkeys(("happy", "cheerful", "friendly", "smiling"), ("sad", "angry")),
    **dict.fromkeys(("silent", "silently", "silence", "quiet", "quietly", "mute", "muted"), ("sound",)),
    **dict.fromkeys(("still", "motionless", "frozen", "static", "stationary"), ("move", "motion")),
    **dict.fromkeys(("closed", "shut", "sealed"), ("open",)),
    **dict.fromkeys(("bare", "naked"), ("leaf", "clothes", "shirt", "decoration")),
    **dict.fromkeys(("alone", "lone", "solitary", "sole"), ("people", "companion")),
    **dict.fromkeys(("dry", "waterless"), ("water", "rain", "wet")),
    **dict.fromkeys(("dark", "unlit", "dim"), ("light", "lit")),
    **dict.fromkeys(("barefoot", "barefooted"), ("shoe", "sock")),
    **{"blank": ("text", "expression"), "bald": ("hair",), "topless": ("shirt",), "plain": ("pattern",)},
}
"""Words that state an absence without a negation -> what is absent."""
