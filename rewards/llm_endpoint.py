"""A language model over an OpenAI-compatible chat endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewards.chat_client import ChatClient, at
from rewards.llm import Cut, Heard, Message, Writer


class EndpointWriter(Writer):
    """The model that a client asks; samples repeat as far as the server honours seeds.

    Its text is heard whole, when all answers are there.
    """

    def __init__(self, client: ChatClient) -> None:
        self.client = client

    def _write(
        self,
        talks: Sequence[Sequence[Message]],
        tokens: int,
        temperature: float,
        seeds: Sequence[int],
        heard: Heard | None,
        cut: Cut | None,
    ) -> list[str]:
        def one(row: int) -> tuple[str, bool]:
            drawn: dict[str, Any] = {"temperature": temperature, "seed": seeds[row]} if temperature else {}
            reply = self.client.ask(talks[row], max_tokens=tokens, **drawn)
            broken = at(reply, "choices", 0, "finish_reason") == "length"
            # A model whose thoughts used up the limit may have no text at all.
            silent = broken and at(reply, "choices", 0, "message", "content") is None
            return "" if silent and cut is not None else self.client.text(reply), broken

        written = self.client.each(one, len(talks))
        for row, (text, broken) in enumerate(written):
            if heard is not None:
                heard(row, text)
            if cut is not None and broken:
                cut(row)
        return [text for text, _ in written]
