"""The output of a rewriter -> its thought and its answer; malformed output is a named fall-back.

"tags" and "last_think" are the conventions of PromptEnhancer (arXiv 2509.04545) as released: of its 7B and of
its 32B model. "continuation" and "rephrase" are those of prompt-expansion models: MagicPrompt and its kind go
on writing the prompt, Promptist (arXiv 2212.09611) writes another one after "Rephrase:".
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
MARKS = "think marks not as expected"
LIMIT = "cut by the token limit"
MOST = 20_000
"""Letters of an output, thought and all: a server may send megabytes of them."""
TOO_LONG = f"more than {MOST} letters"
FALLBACKS = (NO_TAGS, EMPTY, NOT_CLOSED, NOT_OPENED, NESTED, SEVERAL, THOUGHT_OPEN, MARKS, LIMIT, TOO_LONG)

THINK = ("<think>", "</think>")
ANSWER = ("<answer>", "</answer>")
MARK = "think>"
"""The common end of both think marks, which the released 32B code counts and splits at."""
REPHRASE = " Rephrase:"
"""The text that Promptist reads after the prompt."""

Parts = tuple[str, str, str | None]
"""Thought, answer, fall-back."""


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
    if len(output) > MOST:
        return Parsed("", prompt.strip(), TOO_LONG)
    thought, answer, fallback = CONVENTIONS[convention](
        output.removesuffix(CUT), prompt.strip(), output.endswith(CUT)
    )
    if fallback in (None, NO_TAGS) and not answer.strip():
        fallback = EMPTY
    text = answer if fallback in (None, NO_TAGS) else prompt
    return Parsed(thought.strip(), text.strip(), fallback)


def _tags(text: str, prompt: str, cut: bool) -> Parts:
    """The answer in tags; text after a closed answer may be cut off."""
    thought, answer, fallback = _between_tags(text)
    return thought, answer, LIMIT if cut and fallback is not None else fallback


def _between_tags(text: str) -> Parts:
    start, end = ANSWER
    think, thought_end = THINK
    if thought_end in text and think not in text.partition(thought_end)[0]:
        text = think + text  # templates may open the thought themselves, in the prompt
    opened, closed = text.count(start), text.count(end)
    if not opened and not closed:
        return _outside_thought(text)
    before, _, rest = text.partition(start)
    thought = _without(before, *THINK, end)
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


def _outside_thought(text: str) -> Parts:
    """No answer tags at all: the thought, all up to a closing mark without an opening one, is removed."""
    start, end = THINK
    whole = re.compile(re.escape(start) + r"(.*?)" + re.escape(end), re.DOTALL)
    stray, _, answer = whole.sub("", text).rpartition(end)
    if text.count(start) > text.count(end) or start in answer:
        return _without(text, start, end), "", THOUGHT_OPEN
    return _without("\n".join([*whole.findall(text), stray]), start, end), answer, NO_TAGS


def _last_think(text: str, prompt: str, cut: bool) -> Parts:
    """Two think marks in all, and the answer after the second, which has no end mark of its own.

    The released code takes what follows an opening mark too; that is a thought without an end.
    """
    thought, mark, answer = text.rpartition(MARK)
    if text.count(MARK) != 2:
        parts: Parts = _without(text, *THINK), "", MARKS
    elif not (thought + mark).endswith(THINK[1]):
        parts = _without(text, *THINK), "", THOUGHT_OPEN
    else:
        parts = _without(thought + mark, *THINK), answer, None
    return (*parts[:2], LIMIT) if cut else parts


def _continuation(text: str, prompt: str, cut: bool) -> Parts:
    """The prompt and what goes on from it, whether the output repeats the prompt or not."""
    added = text.removeprefix(prompt)
    if re.search(r"\w$", prompt, re.ASCII):
        added = re.sub(r"^\w+", "", added, flags=re.ASCII)  # "cat" would become "catalogue"
    added = _whole(added) if cut else added.rstrip(_LOOSE)
    return "", prompt + added if added.strip() else "", None


def _rephrase(text: str, prompt: str, cut: bool) -> Parts:
    """The text after "Rephrase:", whether the output repeats all that comes before or not."""
    answer = text.removeprefix(prompt + REPHRASE)
    return "", _whole(answer) if cut else answer, None


_LOOSE = " \t\r\n,;:-\u2013\u2014"


def _whole(text: str) -> str:
    """A text that a limit broke off, up to its last comma or sentence, or else its last whole word."""
    end = max(text.rfind(border) for border in ",.;\n")
    return (text[:end] if end >= 0 else text.rpartition(" ")[0]).rstrip(_LOOSE)


def _without(text: str, *marks: str) -> str:
    for mark in marks:
        text = text.replace(mark, "")
    return text


CONVENTIONS = {
    "tags": _tags,
    "last_think": _last_think,
    "continuation": _continuation,
    "rephrase": _rephrase,
}
"""The conventions of outputs: functions of (output, prompt, whether the token limit broke it off)."""
