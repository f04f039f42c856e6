"""Prompts through a rewriter: parse, check, ask again for what failed, or keep the prompt and say why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from t2ialign.rewriting.budget import shorten
from t2ialign.rewriting.intensity import LONG, leave_alone, word_count
from t2ialign.rewriting.parse import parse
from t2ialign.rewriting.survival import KINDS, Lost, check

ALONE = "prompt left alone"
BUDGET = "over the token budget"
REFUSED = "refused"
"""The fall-back of a prompt that the model would not take, such as one that a server's filter holds back."""
LONGEST_REWRITE = 6_000
"""Letters of a rewrite: some 1,000 words, more than any text encoder of an image model reads."""
HARMLESS = "cat"
"""A prompt that no model refuses; one word, so that it is sent whatever prompts are left alone."""


class Rewriter(Protocol):
    """What writes: B prompts -> B raw outputs; one that hit its token limit ends in `parse.CUT`.

    `attempt` counts from 0; a rewriter that samples draws anew for each.
    """

    def write(self, prompts: Sequence[str], *, attempt: int) -> list[str]:
        """B prompts -> B raw outputs, thought and all."""
        ...


@dataclass(frozen=True)
class Rewritten:
    """A prompt and its result; thought, rewrite, fallback and lost are those of the last try."""

    prompt: str
    thought: str = ""
    rewrite: str = ""
    used: str = "original"
    """"rewrite" or "original"."""
    reason: str | None = None
    """The reason why the original is used."""
    fallback: str | None = None
    """One of `parse.FALLBACKS`, or `REFUSED`."""
    lost: tuple[Lost, ...] = ()
    dropped: tuple[str, ...] = ()
    """The pieces that were dropped to fit the token budget."""
    tries: int = 0

    @property
    def text(self) -> str:
        """The prompt to generate from."""
        return self.rewrite if self.used == "rewrite" else self.prompt

    @property
    def cause(self) -> str | None:
        """`reason` as it is counted: without what a server said."""
        return REFUSED if self.fallback == REFUSED else self.reason


def rewrite(
    rewriter: Rewriter,
    prompts: Sequence[str],
    *,
    convention: str = "tags",
    survival: bool = True,
    tries: int = 2,
    longest: int = LONG,
    tokenizer: Any = None,
    limit: int | None = None,
) -> list[Rewritten]:
    """One result a prompt, in order: a rewrite that kept what must survive, else the prompt with the reason.

    survival: whether what a rewrite lost sends it back; off for a rewriter whose task is to replace the
    user's words, since words are what is compared. tries: how often a prompt is asked at most; only what
    failed is asked again. longest: prompts of more words, as `intensity.length`
    counts them, are left alone. tokenizer, limit: the budget in
    tokens, if any. Raises ValueError for a rewriter that returns another number of outputs, and for tries
    below 1.
    """
    if tries < 1:
        raise ValueError(f"got {tries} tries; expected at least 1; ask each prompt once or more")
    results = [
        Rewritten(prompt, reason=ALONE if leave_alone(prompt, longest) else None) for prompt in prompts
    ]
    waiting = [index for index, result in enumerate(results) if result.reason is None]
    for attempt in range(tries):
        if not waiting:
            break
        outputs = rewriter.write([prompts[index] for index in waiting], attempt=attempt)
        if len(outputs) != len(waiting):
            raise ValueError(
                f"got {len(outputs)} outputs of {len(waiting)} prompts; expected one each; correct write()"
            )
        for index, output in zip(waiting, outputs, strict=True):
            judged = judge(
                prompts[index],
                output,
                convention=convention,
                survival=survival,
                tokenizer=tokenizer,
                limit=limit,
            )
            results[index] = replace(judged, tries=attempt + 1)
        waiting = [index for index in waiting if results[index].used == "original"]
    return results


def rewrite_in_parts(
    rewriter: Rewriter, prompts: Sequence[str], settings: Mapping[str, Any]
) -> Iterable[list[Rewritten]]:
    """What `rewrite` returns, whole; if it fails, prompt by prompt, so that none costs another its answer.

    A prompt that fails alone while `HARMLESS` is answered is `REFUSED`, and kept as it is. Raises ValueError
    where that fails too: what is wrong then is no prompt, but the server or the settings.
    """
    try:
        return [rewrite(rewriter, prompts, **settings)]
    except ValueError:
        return ([_alone(rewriter, prompt, settings)] for prompt in prompts)


def _alone(rewriter: Rewriter, prompt: str, settings: Mapping[str, Any]) -> Rewritten:
    try:
        (result,) = rewrite(rewriter, [prompt], **settings)
    except ValueError as error:
        rewrite(rewriter, [HARMLESS], **settings)
        why = str(error).partition(";")[0].removeprefix("got ")
        return Rewritten(prompt, reason=f"{REFUSED}: {why}", fallback=REFUSED, tries=1)
    return result


def judge(
    prompt: str,
    output: str,
    *,
    convention: str = "tags",
    survival: bool = True,
    tokenizer: Any = None,
    limit: int | None = None,
) -> Rewritten:
    """One raw output for a prompt -> whether its rewrite can be used. Raises ValueError like `parse`.

    Without `survival` what was lost is noted, and the rewrite used.
    """
    parsed = parse(output, prompt, convention=convention)
    result = Rewritten(
        prompt, parsed.thought, parsed.answer if parsed.usable else "", fallback=parsed.fallback
    )
    if not parsed.usable:
        return replace(result, reason=parsed.fallback)
    if len(parsed.answer) > LONGEST_REWRITE:
        return replace(result, reason=BUDGET)
    lost = tuple(check(prompt, parsed.answer))
    if tokenizer is not None and not (lost and survival):
        prefix = prompt.strip() if convention == "continuation" else ""
        short = shorten(tokenizer, parsed.answer, limit, original=prompt, prefix=prefix)
        result = replace(result, rewrite=short.text, dropped=short.dropped)
        lost += short.lost
        if (lost and survival) or not short.fits:
            return replace(result, lost=lost, reason=BUDGET)
    if lost and survival:
        kinds = [kind for kind in KINDS if any(loss.what == kind for loss in lost)]
        return replace(result, lost=lost, reason="lost: " + ", ".join(kinds))
    return replace(result, used="rewrite", lost=lost)


def report(results: Sequence[Rewritten]) -> dict[str, Any]:
    """Figures of a run: shares in [0, 1] of the prompts that were asked, and mean words before and after.

    "fallbacks" and "lost" are of the last try, "original" counts every reason for keeping the prompt, and
    "tried_again" is the share asked more than once. Raises ValueError for no results.
    """
    if not results:
        raise ValueError("got no rewritten prompts; expected at least one; rewrite some first")
    tried = [result for result in results if result.tries]
    share = 1 / max(1, len(tried))
    fallbacks = Counter(result.fallback for result in tried if result.fallback)
    return {
        "prompts": len(results),
        "asked": len(tried),
        "rewritten": share * sum(result.used == "rewrite" for result in tried),
        "fallbacks": {reason: share * number for reason, number in sorted(fallbacks.items())},
        "lost": {
            kind: share * sum(any(loss.what == kind for loss in result.lost) for result in tried)
            for kind in KINDS
        },
        "tried_again": share * sum(result.tries > 1 for result in tried),
        "shortened": share * sum(bool(result.dropped) and result.used == "rewrite" for result in tried),
        "original": dict(Counter(result.cause for result in results if result.cause)),
        "words_before": sum(word_count(result.prompt) for result in results) / len(results),
        "words_after": sum(word_count(result.text) for result in results) / len(results),
    }
