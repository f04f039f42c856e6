"""Key points of the toy world: one for each atom of a caption, and an exact judge of them.

A description is a caption of its own ("a red circle left of a blue square"), "no circle", "nothing but ..."
or "nothing unknown", so it can be judged without the prompt. None of the 24 kinds is for colour and shape: of
several things they are `cross_entity_binding`; of the only thing they are `material`, as in `keypoint_rules`,
since nothing is there to mix it up with. What else lies on the canvas is `negation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from torch import Tensor

from rewards.keypoints.taxonomy import KeyPoint
from rewards.keypoints.verdicts import Checker, PromptPoint, Verdict
from rewards.toy.captions import NUMBERS, PLURALS, Caption, Noun, judge, parse
from rewards.toy.vision import read_things
from rewards.toy.world import SHAPES, Thing

NOTHING_BUT, NOTHING_UNKNOWN, NO = "nothing but ", "nothing unknown", "no "
KIND_OF = {"relation": "entity_layout", "comparison": "comparative_relation"}
"""Category of a caption of two things -> kind of what it says of them."""


def toy_points(text: str) -> list[KeyPoint]:
    """A caption of the toy world -> its key points, one an atom of `toy_captions.judge`, in order.

    The evidence is the atom's name. Raises ValueError for a text that is no caption.
    """
    caption = parse(text)
    points = [_of_noun(caption, noun) for noun in dict.fromkeys(caption.nouns)]
    if caption.link is not None:
        first, second = caption.nouns
        description = f"{_a(first)} {caption.link} {_a(second)}"
        points.append(KeyPoint(KIND_OF[caption.category], description, f"{first} {caption.link} {second}"))
    if caption.absent is not None:
        absent = f"{NO}{caption.absent}"
        points.append(KeyPoint("negation", absent, absent))
        points.append(KeyPoint("negation", NOTHING_UNKNOWN, NOTHING_UNKNOWN))
    else:
        points.append(KeyPoint("negation", f"{NOTHING_BUT}{_all_things(caption)}", "nothing else"))
    return points


def shown(point: KeyPoint, things: Sequence[Thing]) -> bool:
    """Whether the things on a canvas are as a description of `toy_points` says, whatever the point's kind.

    Raises ValueError for another description.
    """
    caption, atom = _judged(point.description)
    return judge(caption, things)[atom]


class ToyChecker(Checker):
    """Exact verdicts on images of the toy world: 1 or 0, with what lies there as the reason."""

    def check(self, images: Tensor, pairs: Sequence[Sequence[PromptPoint]]) -> list[list[Verdict]]:
        """images (B, 3, H, W) in [0, 1] -> verdicts of 0 or 1; raises ValueError as `shown` does."""
        pixels = images.detach().permute(0, 2, 3, 1).double().cpu().numpy()
        verdicts = []
        for image, pairs_of_image in zip(pixels, pairs, strict=True):
            things = read_things(image)
            seen = ", ".join(_seen(thing) for thing in things) or "nothing"
            verdicts.append(
                [
                    Verdict(point, float(shown(point, things)), f"there is {seen}")
                    for _, point in pairs_of_image
                ]
            )
        return verdicts


def _of_noun(caption: Caption, noun: Noun) -> KeyPoint:
    if caption.category == "count":
        return KeyPoint("counting", _counted(caption), f"{caption.count} x {noun}")
    alone = len(set(caption.nouns)) == 1
    kind = "size" if noun.size else "material" if alone else "cross_entity_binding"
    return KeyPoint(kind, _a(noun), str(noun))


def _all_things(caption: Caption) -> str:
    """The things without what is said of them to each other."""
    return _counted(caption) if caption.category == "count" else " and ".join(map(_a, caption.nouns))


def _counted(caption: Caption) -> str:
    (noun,) = caption.nouns
    number = next(word for word, count in NUMBERS.items() if count == caption.count)
    return f"{number} {noun.colour} {noun.shape if caption.count == 1 else PLURALS[noun.shape]}"


def _a(noun: Noun) -> str:
    return f"a {noun}"


@lru_cache(maxsize=4096)
def _judged(description: str) -> tuple[Caption, str]:
    """The caption that has this description as an atom, and the atom's name."""
    if description == NOTHING_UNKNOWN:
        return Caption("negation", (), absent=SHAPES[0]), NOTHING_UNKNOWN
    if description.startswith(NO) and description.removeprefix(NO) in SHAPES:
        return Caption("negation", (), absent=description.removeprefix(NO)), description
    whole, rest = description.startswith(NOTHING_BUT), description.removeprefix(NOTHING_BUT)
    try:
        caption = parse(rest)
    except ValueError as error:
        raise _refusal(description) from error
    if caption.category not in ("attribute", "count", *(("pair",) if whole else KIND_OF)):
        raise _refusal(description)
    if whole:
        return caption, "nothing else"
    if caption.link is not None:
        return caption, f"{caption.nouns[0]} {caption.link} {caption.nouns[1]}"
    (noun,) = caption.nouns
    return caption, f"{caption.count} x {noun}" if caption.category == "count" else str(noun)


def _refusal(description: str) -> ValueError:
    return ValueError(
        f"got key point {description!r}, which the toy world cannot judge; expected a description of "
        "keypoint_oracle.toy_points; take the points of a caption"
    )


def _seen(thing: Thing) -> str:
    return f"{thing.colour or 'off-colour'} {thing.shape or 'something'} of radius {thing.size:.1f}"
