"""A language model over an OpenAI-compatible chat endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewards.llm.base import Cut, Heard, Message, Writer
from rewards.llm.chat_client import ChatClient, cut_off


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
        chats: list[dict[str, Any]] = [{"messages": list(talk), "max_tokens": tokens} for talk in talks]
        if temperature:
            chats = [
                {**chat, "temperature": temperature, "seed": seed}
                for chat, seed in zip(chats, seeds, strict=True)
            ]
        written = self.client.ask(chats, lambda reply: (self.client.text(reply), cut_off(reply)))
        for row, (text, broken) in enumerate(written):
            if heard is not None:
                heard(row, text)
            if cut is not None and broken:
                cut(row)
        return [text for text, _ in written]
