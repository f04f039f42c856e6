"""Key points of prompts by a language model: our instruction, and a reader that loses nothing silently."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from rewards.keypoints import taxonomy as keypoints
from rewards.keypoints.taxonomy import KeyPoint
from rewards.llm.base import Message, Writer

INSTRUCTION = """You read prompts for an image generator and list what a picture must show to be right for \
them. Each thing that can be checked on its own is one key point, of one of these kinds:

{kinds}

Rules: take only what the prompt says or clearly implies, and add nothing of your own. One fact a key point; \
say it as a short statement about the picture that somebody who has not read the prompt can check. Use the \
kind that fits best, and no kind for what none of them covers. Copy the words of the prompt that say so into \
"evidence". A prompt without key points gets an empty list.

Answer with JSON only, a list of objects of this schema:
{schema}

For the prompt "three dogs without collars, the smallest one asleep" the answer is:
{example}"""
"""The system message; `instruction` fills in the taxonomy."""

REQUEST = "The prompt:\n{prompt}"
AGAIN = "This could not be read: {reason}. Answer once more with the whole JSON list and nothing else."
SILENCE = "(no answer)"
"""Stands in for an empty answer, because servers and templates refuse a turn without text."""

EXAMPLE = [
    KeyPoint("counting", "there are exactly three dogs", "three dogs"),
    KeyPoint("negation", "no dog wears a collar", "without collars"),
    KeyPoint("state", "the smallest dog is asleep", "the smallest one asleep"),
]


class Extractor:
    """Asks a writer for the key points of prompts; `retried` and `unreadable` count prompts so far."""

    def __init__(self, writer: Writer, *, tokens: int = 1024) -> None:
        self.writer, self.tokens = writer, tokens
        self.retried = self.unreadable = 0

    def extract(self, prompts: Sequence[str]) -> list[list[KeyPoint] | None]:
        """P prompts -> the key points of each; None where two answers could not be read, never an empty list.

        Answers are greedy, and an unreadable one is asked for again with the reason. Raises ValueError as
        the writer does.
        """
        talks: dict[int, list[Message]] = {row: _talk(prompt) for row, prompt in enumerate(prompts)}
        points: list[list[KeyPoint] | None] = [None] * len(prompts)
        for attempt in range(2):
            self.retried += len(talks) if attempt else 0
            answers = self.writer.write(list(talks.values()), tokens=self.tokens)
            left: dict[int, list[Message]] = {}
            for (row, talk), answer in zip(talks.items(), answers, strict=True):
                try:
                    points[row] = read(answer)
                except ValueError as error:
                    left[row] = [*talk, *_correction(answer, str(error))]
            talks = left
        self.unreadable += len(talks)
        return points

    def __call__(self, prompt: str) -> list[KeyPoint]:
        """The key points of one prompt. Raises ValueError where they could not be read."""
        (points,) = self.extract([prompt])
        if points is None:
            raise ValueError(
                f"got no key points that can be read for {prompt!r}, asked twice; expected a JSON list; "
                f"raise tokens={self.tokens} or take another language model"
            )
        return points


def instruction() -> str:
    """The system message with the 24 kinds, the schema and an example."""
    kinds = "\n".join(f"- {kind.id}: {kind.definition}" for kind in keypoints.kinds().values())
    schema = json.dumps(keypoints.schema()["items"])
    example = json.dumps(keypoints.to_json(EXAMPLE))
    filled = {"{kinds}": kinds, "{schema}": schema, "{example}": example}
    return re.sub(r"\{\w+\}", lambda match: filled[match.group()], INSTRUCTION)


def read(answer: str) -> list[KeyPoint]:
    """A model's answer -> key points, from the last list of objects in it, whatever stands around it.

    An empty list counts only where no other came before it. Thoughts before </think>, code fences, an object
    around the list, kinds by their names and keys beyond the schema are let pass. Raises ValueError for no
    list, one that is cut off, and entries that are no key points: half a list is not an answer.
    """
    text = answer.rpartition("</think>")[2]
    entries: list[Any] | None = None
    start = 0
    while opening := _OPENING.search(text, start):
        try:
            value, start = json.JSONDecoder().raw_decode(text, opening.start())
        except json.JSONDecodeError as error:
            raise ValueError(f"JSON that breaks off or is wrong: {error.msg} at {error.pos}") from error
        items = _list_in(value)
        entries = items if items or entries is None else entries
    if entries is None:
        raise ValueError("no JSON list of key points in the answer")
    return keypoints.from_json([_tidied(row) for row in entries])


_OPENING = re.compile(r"\[\s*(?=[\]{])|\{\s*(?=[\"}])")
"""The beginning of a list of objects or of an object; "[3]" and "{prompt}" in a sentence do not match."""


def _list_in(value: Any) -> list[Any] | None:
    """The list itself, or the only list in an object."""
    if isinstance(value, list):
        return value
    lists = [inner for inner in value.values() if isinstance(inner, list)]
    return lists[0] if len(lists) == 1 else None


def _tidied(row: Any) -> Any:
    """An entry with the keys of the schema and the id of its kind, if it is an object."""
    if not isinstance(row, dict):
        return row
    entry = {key: row[key] for key in ("kind", "description", "evidence") if row.get(key) is not None}
    if "kind" in entry:
        if not isinstance(entry["kind"], str):
            raise ValueError(f"got kind {entry['kind']!r}; expected one of the 24 ids; name it")
        entry["kind"] = keypoints.kind_named(entry["kind"])
    return entry


def _talk(prompt: str) -> list[Message]:
    return [
        {"role": "system", "content": instruction()},
        {"role": "user", "content": REQUEST.replace("{prompt}", prompt)},
    ]


def _correction(answer: str, reason: str) -> list[Message]:
    return [
        {"role": "assistant", "content": answer if answer.strip() else SILENCE},
        {"role": "user", "content": AGAIN.replace("{reason}", reason)},
    ]
