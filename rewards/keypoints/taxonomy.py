"""Key points: the 24 kinds of things that a prompt asks for, and those of one prompt as checkable sentences.

PromptEnhancer (arXiv 2509.04545): 6 categories, 24 key points, each judged for consistency with the prompt,
some for the structure of bodies too. `keypoints.json` holds the taxonomy, in English with room for other
languages; `keypoint_rules.py` and `keypoint_llm.py` find the key points of a prompt.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("keypoints.json")
LETTERS = 4_000
"""Letters of a prompt in which key points are looked for, by rules or by a model: some 700 words."""


@dataclass(frozen=True)
class Kind:
    """One of the 24 kinds: its names, its question, and how it is judged."""

    id: str
    category: str
    name: str
    definition: str
    criteria: tuple[str, ...]
    """consistency, and structure where bodies have to be plausible."""
    share: float
    """Share of the evaluation prompts of the source that have it, in [0, 1]."""


@dataclass(frozen=True)
class KeyPoint:
    """One thing that a prompt asks for: its kind, and what exactly must be seen."""

    kind: str
    """The id of a `Kind`."""
    description: str
    """A concrete statement about the image, such as "there are exactly three dogs"."""
    evidence: str = ""
    """The words of the prompt that say so."""

    def __post_init__(self) -> None:
        if self.kind not in kinds():
            raise ValueError(f"got key point {self.kind!r}; expected one of {', '.join(kinds())}; correct it")
        if not isinstance(self.description, str) or not self.description.strip():
            raise ValueError(
                f"got {self.kind} without a description; expected a sentence; state what must be seen"
            )


@cache
def kinds(language: str = "en") -> dict[str, Kind]:
    """id -> kind, in the order of the taxonomy. Raises ValueError for a language that it has no text in."""
    data = json.loads(FILE.read_text(encoding="utf-8"))
    spoken = sorted(set.intersection(*(set(row["definition"]) for row in data["points"])))
    if language not in spoken:
        raise ValueError(
            f"got language {language!r}; expected one of {', '.join(spoken)}; add its texts to {FILE.name}"
        )
    return {
        row["id"]: Kind(
            id=row["id"],
            category=row["category"],
            name=row["name"][language],
            definition=row["definition"][language],
            criteria=tuple(row["criteria"]),
            share=row["share"] / 100,
        )
        for row in data["points"]
    }


def categories(language: str = "en") -> dict[str, str]:
    """id -> name of the six categories, in order."""
    data = json.loads(FILE.read_text(encoding="utf-8"))
    return {key: names[language] for key, names in data["categories"].items()}


def kind_named(name: str) -> str:
    """The id of a kind by its id or its name in any language, whatever the case and the punctuation.

    Raises ValueError for a name that is none of the 24.
    """
    wanted = plain(name)
    for row in json.loads(FILE.read_text(encoding="utf-8"))["points"]:
        if wanted in {plain(row["id"]), *map(plain, row["name"].values())}:
            return str(row["id"])
    raise ValueError(f"got key point {name!r}; expected one of {', '.join(kinds())}; correct it")


def to_json(points: Sequence[KeyPoint]) -> list[dict[str, str]]:
    """Key points -> plain JSON, one object each, in the form of `schema`."""
    return [asdict(point) for point in points]


def from_json(rows: Any) -> list[KeyPoint]:
    """Plain JSON -> key points. Raises ValueError, saying which entry, for anything of another form."""
    if not isinstance(rows, list):
        raise ValueError(f"got {type(rows).__name__}; expected a list of key points; put them in brackets")
    return [_point(row, place) for place, row in enumerate(rows)]


def schema() -> dict[str, Any]:
    """The JSON schema of a list of key points, for files and for models that write them."""
    text = {"type": "string", "minLength": 1}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "kind": {"enum": list(kinds())},
                "description": text,
                "evidence": {"type": "string"},
            },
            "required": ["kind", "description"],
            "additionalProperties": False,
        },
    }


def _point(row: Any, place: int) -> KeyPoint:
    known = {"kind", "description", "evidence"}
    if not isinstance(row, dict) or not {"kind", "description"} <= set(row) <= known:
        raise ValueError(
            f"got {row!r} as key point {place}; expected an object with kind, description and perhaps "
            "evidence; correct it"
        )
    evidence = row.get("evidence", "")
    if not isinstance(evidence, str):
        raise ValueError(f"got evidence {evidence!r} of key point {place}; expected a text; correct it")
    return KeyPoint(row["kind"], row["description"], evidence)


def plain(text: str) -> str:
    """A name by which its spellings are the same: letters and digits alone, in one case."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())
