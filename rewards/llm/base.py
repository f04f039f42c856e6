"""Language models that write text: chat messages in, an answer out; no images.

`Writer` is the interface; `llm_local.py` is the writer over a causal language model of transformers, and
`llm_endpoint.py` the one over an OpenAI-compatible server.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

Message = Mapping[str, str]
"""{"role": one of `ROLES`, "content": the text}"""
Heard = Callable[[int, str], None]
"""Called with (row, piece) for every new piece of a row's text."""
Cut = Callable[[int], None]
"""Called with every row whose text the token limit broke off."""

ROLES = ("system", "user", "assistant")


class Writer(ABC):
    """Answers chats, each on its own."""

    @abstractmethod
    def _write(
        self,
        talks: Sequence[Sequence[Message]],
        tokens: int,
        temperature: float,
        seeds: Sequence[int],
        heard: Heard | None,
        cut: Cut | None,
    ) -> list[str]:
        """Write as `write` does, after its checks have passed, with one seed per chat."""

    def write(
        self,
        messages: Sequence[Sequence[Message]],
        *,
        tokens: int = 512,
        temperature: float = 0.0,
        seed: int | Sequence[int] = 0,
        heard: Heard | None = None,
        cut: Cut | None = None,
    ) -> list[str]:
        """B chats, each a list of messages -> B answers of at most `tokens` tokens.

        Greedy at temperature 0. Above it row i is drawn with seed + i, whatever rows are beside it, so calls
        whose samples shall differ need seeds at least B apart, or name one for each row. `heard` gets the
        text as it is written, `cut` the rows that were not done at the last token. Raises ValueError for
        chats of another form, another number of seeds, less than a token, and a temperature below 0.
        """
        _check(messages)
        if tokens < 1 or not 0 <= temperature < math.inf:
            raise ValueError(
                f"got tokens={tokens}, temperature={temperature}; expected at least 1 and at least 0; "
                "correct them"
            )
        seeds = [seed + row for row in range(len(messages))] if isinstance(seed, int) else list(seed)
        if len(seeds) != len(messages):
            raise ValueError(
                f"got {len(seeds)} seeds for {len(messages)} chats; expected one, or one each; pass them"
            )
        return self._write(messages, tokens, temperature, seeds, heard, cut) if messages else []


def _check(messages: Sequence[Sequence[Message]]) -> None:
    for row, talk in enumerate(messages):
        fits = isinstance(talk, Sequence) and not isinstance(talk, str) and len(talk) > 0
        if not fits or not all(_is_message(message) for message in talk):
            raise ValueError(
                f"got {talk!r} as chat {row}; expected a list of messages with a role of {', '.join(ROLES)} "
                "and a text as content; pass [[message]] for one chat"
            )


def _is_message(message: object) -> bool:
    if not isinstance(message, Mapping):
        return False
    return message.get("role") in ROLES and isinstance(message.get("content"), str)
