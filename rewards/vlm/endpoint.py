"""A judge over an OpenAI-compatible chat endpoint that returns log-probabilities, such as vLLM's server."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rewards.llm.base import Cut
from rewards.llm.chat_client import ChatClient, at, cut_off
from rewards.vlm.base import MARKS, NO, YES, Judge, NeitherWord, to_pil


class Endpoint(Judge):
    """A judge behind `url` (".../v1"); the options but yes, no and top are those of `ChatClient`.

    `top` is how many of the likeliest first tokens the server lists. Raises ValueError as `ChatClient` does,
    and for a `top` below 1.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_env: str | None = None,
        yes: Sequence[str] = YES,
        no: Sequence[str] = NO,
        top: int = 20,
        timeout: float = 120.0,
        tries: int = 5,
        wait: float = 1.0,
        workers: int = 8,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if min(tries, workers, top) < 1 or timeout <= 0:
            raise ValueError(
                f"got tries={tries}, workers={workers}, top={top}, timeout={timeout}; expected at least 1 "
                "each and seconds above 0; correct them"
            )
        self.client = ChatClient(
            url,
            model,
            key_env=key_env,
            timeout=timeout,
            tries=tries,
            wait=wait,
            workers=workers,
            extra=extra,
        )
        self.top = top
        self.words = [{word.casefold() for word in words} for words in (yes, no)]

    def _answer(self, images: Tensor, questions: Sequence[str], rows: list[int]) -> Tensor:
        options = {"max_tokens": 1, "logprobs": True, "top_logprobs": self.top}
        replies = self.client.ask(_chats(images, questions, rows, options), self._read)
        reasons = {j: reply for j, reply in enumerate(replies) if isinstance(reply, str)}
        values = [[math.nan] * 2 if isinstance(reply, str) else reply for reply in replies]
        answers = torch.tensor(values, dtype=torch.float32, device=images.device).reshape(-1, 2)
        if reasons:
            places = ", ".join(str(row) for row in dict.fromkeys(rows[j] for j in reasons))
            raise NeitherWord(
                f"got {next(iter(reasons.values()))} to {len(reasons)} of {len(replies)} questions (images "
                f"{places} of the batch); expected yes or no; ask for them in the question, raise top=, or "
                "switch thinking off with extra=",
                reasons,
                answers,
            )
        return answers

    def _write(
        self, images: Tensor, questions: Sequence[str], rows: list[int], tokens: int, cut: Cut | None
    ) -> list[str]:
        chats = _chats(images, questions, rows, {"max_tokens": tokens})
        written = self.client.ask(chats, lambda reply: (self.client.text(reply), cut_off(reply)))
        for j, (_, broken) in enumerate(written):
            if cut is not None and broken:
                cut(j)
        return [text for text, _ in written]

    def _listed(self, reply: Any) -> list[tuple[str, float]]:
        """(token, log-probability) of the likeliest first tokens; none of a message without any."""
        listing = at(reply, "choices", 0, "logprobs", "content", 0, "top_logprobs")
        entries = listing if isinstance(listing, list) else []
        message = at(reply, "choices", 0, "message")
        if not entries and isinstance(message, dict) and not message.get("content"):
            return []
        listed = [(at(entry, "token"), at(entry, "logprob")) for entry in entries]
        if not listed or not all(isinstance(t, str) and isinstance(p, int | float) for t, p in listed):
            raise ValueError(
                f"got a reply without log-probabilities from {self.client.url}; expected "
                "choices[0].logprobs.content[0].top_logprobs; use a server that returns them, such as vLLM, "
                f"and allow {self.top} a token (--max-logprobs)"
            )
        return sorted(set(listed), key=lambda entry: -entry[1])  # some servers list the chosen token twice

    def _read(self, reply: Any) -> list[float] | str:
        """log P(yes), log P(no), or what was answered if it was neither.

        A word that is not listed gets the most it can have: what the last has.
        """
        listed = self._listed(reply)
        sums = [
            sum(math.exp(p) for token, p in listed if token.strip().lstrip(MARKS).casefold() in words)
            for words in self.words
        ]
        if not any(sums):
            first = ", ".join(repr(token) for token, _ in listed[:5])
            what = f"{first} ... as the likeliest answers of" if first else "no text from"
            return f"{what} {self.client.model!r}"
        rest = 1 - sum(math.exp(p) for _, p in listed)
        bound = max(min(math.exp(listed[-1][1]), rest), 1e-12)
        return [math.log(total or bound) for total in sums]


def _chats(
    images: Tensor, questions: Sequence[str], rows: Sequence[int], options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One turn of the user for each question: its image, then the question."""
    urls = _data_urls(images, rows)
    return [
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": urls[row]}},
                        {"type": "text", "text": question},
                    ],
                }
            ],
            **options,
        }
        for row, question in zip(rows, questions, strict=True)
    ]


def _data_urls(images: Tensor, rows: Sequence[int]) -> dict[int, str]:
    """A PNG as a data URL for each image that is asked about, made once."""
    used = sorted(set(rows))
    urls = {}
    for row, image in zip(used, to_pil(images[used]) if used else [], strict=True):
        file = io.BytesIO()
        image.save(file, "PNG")
        urls[row] = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return urls
