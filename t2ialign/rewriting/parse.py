"""What a rewriter wrote -> its thought and its answer; whatever is malformed is a named fall-back.

Two conventions of PromptEnhancer (arXiv 2509.04545) as released: "tags" of its 7B model, "last_think" of 32B.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CUT = "<|cut|>"
"""A rewriter ends an output with this mark when the model reached its token limit before it was done."""

NO_TAGS = "no answer tags"
"""The one fall-back with a usable answer: the text outside the thought, as the released 7B code takes it."""
EMPTY = "empty answer"
NOT_CLOSED = "answer not closed"
NOT_OPENED = "answer not opened"
NESTED = "answer nested"
SEVERAL = "several answers"
THOUGHT_OPEN = "thought not closed"
MARKS = "closing think marks not as expected"
LIMIT = "cut by the token limit"
FALLBACKS = (NO_TAGS, EMPTY, NOT_CLOSED, NOT_OPENED, NESTED, SEVERAL, THOUGHT_OPEN, MARKS, LIMIT)


@dataclass(frozen=True)
class Convention:
    """How outputs are marked: the pair of answer marks, if any, or the number of closing think marks."""

    think: tuple[str, str] = ("<think>", "</think>")
    answer: tuple[str, str] | None = None
    closing: int = 0


CONVENTIONS = {
    "tags": Convention(answer=("<answer>", "</answer>")),
    "last_think": Convention(closing=2),
}


@dataclass(frozen=True)
class Parsed:
    """One output; `answer` is the user's prompt, unchanged, wherever the fall-back has no text to offer."""

    thought: str
    answer: str
    fallback: str | None = None
    """One of `FALLBACKS`, or None for an output in good form."""

    @property
    def usable(self) -> bool:
        """Whether the answer came from the output."""
        return self.fallback in (None, NO_TAGS)


def parse(output: str, prompt: str, *, convention: str = "tags") -> Parsed:
    """An output, perhaps ending in `CUT`, for a prompt -> its parts, both stripped.

    Raises ValueError for a convention that is none of `CONVENTIONS`.
    """
    if convention not in CONVENTIONS:
        raise ValueError(
            f"got convention {convention!r}; expected one of {', '.join(CONVENTIONS)}; name the model's own"
        )
    form = CONVENTIONS[convention]
    cut = output.endswith(CUT)
    body = output.removesuffix(CUT)
    if form.answer is None:
        thought, answer, fallback = _after_last_think(body, form)
    else:
        thought, answer, fallback = _between_tags(body, form, form.answer)
    # What follows a closed answer may be cut; an answer without an end mark of its own may not.
    if cut and (fallback is not None or form.answer is None):
        fallback = LIMIT
    if fallback in (None, NO_TAGS) and not answer.strip():
        fallback = EMPTY
    kept = answer if fallback in (None, NO_TAGS) else prompt
    return Parsed(thought.strip(), kept.strip(), fallback)


def _between_tags(text: str, form: Convention, marks: tuple[str, str]) -> tuple[str, str, str | None]:
    start, end = marks
    think, thought_end = form.think
    if thought_end in text and think not in text.partition(thought_end)[0]:
        text = think + text  # templates may open the thought themselves, in the prompt
    opened, closed = text.count(start), text.count(end)
    if not opened and not closed:
        return _outside_thought(text, form)
    before, _, rest = text.partition(start)
    thought = _without(before, *form.think, end)
    if not opened:
        return "", "", NOT_OPENED
    if not closed or text.rfind(end) < text.find(start):
        return thought, "", NOT_CLOSED
    if before.count(think) > before.count(thought_end) and thought_end in rest:
        return thought, "", NESTED  # a draft inside the thought is no answer
    if (opened, closed) != (1, 1):
        inside = rest.partition(end)[0]
        return thought, "", NESTED if start in inside else SEVERAL if opened > 1 else NOT_OPENED
    return thought, rest.partition(end)[0], None


def _outside_thought(text: str, form: Convention) -> tuple[str, str, str | None]:
    """No answer tags at all: the thought, all up to a closing mark without an opening one, is removed."""
    start, end = form.think
    whole = re.compile(re.escape(start) + r"(.*?)" + re.escape(end), re.DOTALL)
    stray, _, answer = whole.sub("", text).rpartition(end)
    if text.count(start) > text.count(end) or start in answer:
        return _without(text, start, end), "", THOUGHT_OPEN
    return _without("\n".join([*whole.findall(text), stray]), start, end), answer, NO_TAGS


def _after_last_think(text: str, form: Convention) -> tuple[str, str, str | None]:
    start, end = form.think
    thought, _, answer = text.rpartition(end)
    if text.count(end) != form.closing:
        return _without(text, start, end), "", MARKS
    if start in answer:
        return _without(thought, start, end), "", THOUGHT_OPEN
    return _without(thought, start, end), answer, None


def _without(text: str, *marks: str) -> str:
    for mark in marks:
        text = text.replace(mark, "")
    return text
