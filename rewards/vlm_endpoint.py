"""A judge over an OpenAI-compatible chat endpoint that returns log-probabilities, such as vLLM's server."""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

import torch
from torch import Tensor

from rewards.vlm import MARKS, NO, YES, Judge, to_pil

T = TypeVar("T")

AGAIN = {408, 409, 429, 500, 502, 503, 504}
"""Statuses that pass: too many requests, and trouble on the server's side."""
LONGEST = 60.0
"""Seconds of the longest wait between tries."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Endpoint(Judge):
    """A judge behind `url` (".../v1"), asking `workers` questions at a time.

    `key_env` names the environment variable that holds the key; no key is sent without it. `extra` joins each
    request ({"chat_template_kwargs": {"enable_thinking": False}}). A try lasts at most `timeout` seconds;
    429, 5xx, time-outs and broken replies are tried `tries` times in all, after `wait`, 2 `wait`, ... seconds
    or what the server asks for. Raises ValueError for a URL that is not one and for a variable that is not
    set.
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
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError(
                "got an endpoint that is no plain address; expected http(s)://HOST:PORT/v1 without a user "
                "or key; put the key in an environment variable and name it in key_env="
            )
        if min(tries, workers, top) < 1 or timeout <= 0:
            raise ValueError(
                f"got tries={tries}, workers={workers}, top={top}, timeout={timeout}; expected at least 1 "
                "each and seconds above 0; correct them"
            )
        self.url = url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self.model, self.top, self.extra = model, top, dict(extra or {})
        self.timeout, self.tries, self.wait, self.workers = timeout, tries, wait, workers
        self.words = [{word.casefold() for word in words} for words in (yes, no)]
        self._key = os.environ.get(key_env, "") if key_env else ""
        if key_env and not self._key:
            raise ValueError(f"got no value in ${key_env}; expected the endpoint's key; set that variable")
        self._opener = urllib.request.build_opener(_Stay)

    def _answer(self, images: Tensor, questions: Sequence[str], rows: list[int]) -> Tensor:
        urls = _data_urls(images, rows)
        asked = {"max_tokens": 1, "logprobs": True, "top_logprobs": self.top}

        def one(j: int) -> list[float]:
            reply = self._send(self._body(urls[rows[j]], questions[j], asked))
            return self._read(self._listed(reply))

        found = self._all(one, len(questions))
        return torch.tensor(found, dtype=torch.float32, device=images.device).reshape(-1, 2)

    def _write(self, images: Tensor, questions: Sequence[str], rows: list[int], tokens: int) -> list[str]:
        urls = _data_urls(images, rows)

        def one(j: int) -> str:
            reply = self._send(self._body(urls[rows[j]], questions[j], {"max_tokens": tokens}))
            text = _at(reply, "choices", 0, "message", "content")
            if not isinstance(text, str):
                raise ValueError(
                    f"got a reply without text from {self.url}; expected choices[0].message.content; "
                    "check that the model answers questions about images"
                )
            return text

        return self._all(one, len(questions))

    def _body(self, image: str, question: str, options: dict[str, Any]) -> dict[str, Any]:
        content = [
            {"type": "image_url", "image_url": {"url": image}},
            {"type": "text", "text": question},
        ]
        talk = {"model": self.model, "messages": [{"role": "user", "content": content}], "temperature": 0}
        return {**talk, **options, **self.extra}

    def _all(self, one: Callable[[int], T], count: int) -> list[T]:
        """The results in order; the first failure ends the rest."""
        with ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(one, j) for j in range(count)]
            try:
                return [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()

    def _send(self, body: dict[str, Any]) -> Any:
        """The reply's JSON. Raises ValueError when the server refuses, or after the last try."""
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = json.dumps(body).encode()
        trouble, asked = "", 0.0
        for attempt in range(self.tries):
            if attempt:
                time.sleep(min(max(asked, self.wait * 2 ** (attempt - 1)), LONGEST))
            asked = 0.0
            request = urllib.request.Request(self.url, data, headers)
            try:
                with self._opener.open(request, timeout=self.timeout) as reply:
                    return json.loads(reply.read())
            except urllib.error.HTTPError as error:
                with error:
                    trouble = f"status {error.code} ({self._brief(error)})"
                    asked = _seconds(error.headers.get("Retry-After"))
                if error.code not in AGAIN:
                    raise ValueError(
                        f"got {trouble} from {self.url}; expected 200; check the address, the key, the "
                        f"model's name {self.model!r} and that it takes images"
                    ) from None
            except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
                trouble = self._hidden(f"{type(error).__name__} ({error})")
            except ValueError:
                trouble = "a reply that is not JSON"
        raise ValueError(
            f"got {trouble} from {self.url} in the last of {self.tries} tries; expected a reply; see that "
            "the server runs, or raise timeout= and tries="
        )

    def _brief(self, error: urllib.error.HTTPError) -> str:
        """What the server said, on one line."""
        try:
            said = error.read(4096).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            said = ""
        return self._hidden(" ".join((said or str(error.reason)).split())[:200])

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _listed(self, reply: Any) -> list[tuple[str, float]]:
        """(token, log-probability) of the likeliest first tokens."""
        found = _at(reply, "choices", 0, "logprobs", "content", 0, "top_logprobs")
        entries = found if isinstance(found, list) else []
        listed = [(_at(entry, "token"), _at(entry, "logprob")) for entry in entries]
        if not listed or not all(isinstance(t, str) and isinstance(p, int | float) for t, p in listed):
            raise ValueError(
                f"got a reply without log-probabilities from {self.url}; expected "
                "choices[0].logprobs.content[0].top_logprobs; use a server that returns them, such as vLLM, "
                f"and allow {self.top} a token (--max-logprobs)"
            )
        return sorted(set(listed), key=lambda entry: -entry[1])  # some servers list the chosen token twice

    def _read(self, listed: list[tuple[str, float]]) -> list[float]:
        """log P(yes), log P(no); a word that is not listed gets the most it can have: what the last has."""
        sums = [
            sum(math.exp(p) for token, p in listed if token.strip().lstrip(MARKS).casefold() in words)
            for words in self.words
        ]
        if not any(sums):
            first = ", ".join(repr(token) for token, _ in listed[:5])
            raise ValueError(
                f"got {first} ... as the likeliest answers of {self.model!r}; expected yes or no; ask for "
                "them in the question, raise top=, or switch thinking off with extra="
            )
        rest = 1 - sum(math.exp(p) for _, p in listed)
        bound = max(min(math.exp(listed[-1][1]), rest), 1e-12)
        return [math.log(total or bound) for total in sums]


def _data_urls(images: Tensor, rows: Sequence[int]) -> dict[int, str]:
    """A PNG as a data URL for each image that is asked about, made once."""
    used = sorted(set(rows))
    urls = {}
    for row, picture in zip(used, to_pil(images[used]) if used else [], strict=True):
        file = io.BytesIO()
        picture.save(file, "PNG")
        urls[row] = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return urls


def _at(reply: Any, *path: str | int) -> Any:
    """What lies at a path of keys and indices; None where the reply has another shape."""
    for step in path:
        fits = isinstance(reply, dict) if isinstance(step, str) else isinstance(reply, list)
        if not fits or (step not in reply if isinstance(step, str) else step >= len(reply)):
            return None
        reply = reply[step]
    return reply


def _seconds(text: str | None) -> float:
    """A Retry-After header in seconds; 0 where it is absent or a date."""
    return float(text) if text and text.strip().isdigit() else 0.0
