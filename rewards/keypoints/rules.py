"""Key points of a prompt by rules: no model, the same answer every time, and only what its words say.

Colours, shapes and other looks are `cross_entity_binding` where two or more things have some ("the car is
red", "the bench is blue"). Of the only thing with a look, colour and pattern are `material`, how its surface
looks, and shape is `similarity_relation`, since none of the 24 kinds is for them. Numbers count from two on,
where the published kind begins at three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rewards.keypoints import actions, attributes, language, relations
from rewards.keypoints.parse import read
from rewards.keypoints.taxonomy import LETTERS, KeyPoint, kinds
from rewards.keypoints.text import Reading
from rewards.text.length import too_long

Rule = Callable[[Reading], Iterator[KeyPoint]]

RULES: tuple[Rule, ...] = (
    *(language.negation, attributes.consistency, language.pronouns),
    *(attributes.counting, attributes.size, attributes.material, actions.expression, language.style),
    *(actions.body, actions.hand, actions.animal, actions.contact, actions.without_contact, actions.state),
    *(relations.comparison, relations.composition, relations.containment, relations.similarity),
    *(attributes.shape, attributes.binding, relations.layout),
    *(language.knowledge, language.counterfactual, language.text, language.text_layout),
)
"""One rule or more a kind."""


def extract(prompt: str) -> list[KeyPoint]:
    """The key points of a prompt in the order of the taxonomy, each once.

    Raises ValueError for no text, and for one of more than `keypoints.LETTERS`.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"got {prompt!r}; expected a prompt; write what the image shows")
    if wrong := too_long(prompt, LETTERS):
        raise ValueError(wrong)
    reading = read(prompt)
    points = dict.fromkeys(point for rule in RULES for point in rule(reading))
    order = list(kinds())
    return sorted(points, key=lambda point: order.index(point.kind))
