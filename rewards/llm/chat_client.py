"""A client of OpenAI-compatible chat endpoints: tries again what passes, and keeps the key to itself."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rewards import user_code

T = TypeVar("T")

AGAIN = {408, 409, 429, 500, 502, 503, 504}
"""Statuses that pass: too many requests, and trouble on the server's side."""
LONGEST = 60.0
"""Seconds of the longest wait between tries."""
PIECE = 1 << 16
"""Bytes that are read at a time."""
MOST = 8 << 20
"""Bytes of the longest reply that is read; a chat's are a thousandth of it."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


class ChatClient:
    """Asks `model` behind `url` (".../v1"), `workers` requests at a time.

    `key_env` names the environment variable that holds the key; no key is sent without it. `extra` joins each
    request ({"chat_template_kwargs": {"enable_thinking": False}}). A try is given up when nothing comes for
    `timeout` seconds, and when its reply drips for longer than that; time-outs, 429, 5xx and broken replies
    are tried `tries` times in all, after `wait`, 2 `wait`, ... seconds or what the server asks for. A
    reply of more than `MOST` bytes is refused. Raises ValueError for a URL that is
    not one, and for a variable that is not set or holds no key.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_env: str | None = None,
        timeout: float = 120.0,
        tries: int = 5,
        wait: float = 1.0,
        workers: int = 8,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if (file := user_code.source()) is not None:  # or it would send images, and a key, anywhere
            raise ValueError(
                f"got a server (url=) in {file}; expected none, since files of weights may not say where "
                "images are sent; name the reward and its url= yourself"
            )
        parts = urlsplit(url)
        plain = "@" not in parts.netloc and not set("?#") & set(url)  # paths are added to it; keys hide there
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            raise ValueError(
                "got an endpoint that is no plain address; expected http(s)://HOST:PORT/v1 without a user, "
                "key, query or fragment; put the key in an environment variable and name it in key_env="
            )
        if min(tries, workers) < 1 or timeout <= 0:
            raise ValueError(
                f"got tries={tries}, workers={workers}, timeout={timeout}; expected at least 1 each and "
                "seconds above 0; correct them"
            )
        self.url = url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self.model, self.extra = model, dict(extra or {})
        self.timeout, self.tries, self.wait, self.workers = timeout, tries, wait, workers
        self._key = _key(key_env) if key_env else ""
        self._opener = urllib.request.build_opener(_Stay)

    def ask(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Any:
        """Chat messages -> the reply's JSON, at temperature 0 unless `options` say otherwise.

        Raises ValueError when the server refuses, or after the last try.
        """
        talk = {"model": self.model, "messages": list(messages), "temperature": 0}
        return self._send({**talk, **options, **self.extra})

    def each(self, one: Callable[[int], T], count: int) -> list[T]:
        """one(0), ..., one(count - 1) in order, `workers` at a time; the first failure ends the rest."""
        with ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(one, j) for j in range(count)]
            try:
                return [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()

    def text(self, reply: Any) -> str:
        """What the model wrote; "" where its message has none, as when thoughts used up the tokens.

        Raises ValueError for a reply without a message.
        """
        message = at(reply, "choices", 0, "message")
        text = at(message, "content")
        if not isinstance(message, dict) or not isinstance(text, str | None):
            raise ValueError(
                f"got a reply without a message from {self.url}; expected a text in "
                f"choices[0].message.content; check that the server has a chat model as {self.model!r}"
            )
        return text or ""

    def _send(self, body: dict[str, Any]) -> Any:
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
            deadline = time.monotonic() + self.timeout
            try:
                with self._opener.open(request, timeout=self.timeout) as reply:
                    found = _body(reply, deadline)
            except urllib.error.HTTPError as error:
                with error:
                    trouble = f"status {error.code} ({self._brief(error, deadline)})"
                    asked = _seconds(error.headers.get("Retry-After"))
                if error.code not in AGAIN:
                    raise ValueError(
                        f"got {trouble} from {self.url}; expected 200; check the address, the key, the "
                        f"model's name {self.model!r} and that it takes what it was sent (images?)"
                    ) from None
            except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
                trouble = self._hidden(f"{type(error).__name__} ({error})")
            else:
                try:
                    return json.loads(found)
                except (ValueError, RecursionError):
                    trouble = "a reply that is not JSON"
        raise ValueError(
            f"got {trouble} from {self.url} in the last of {self.tries} tries; expected a reply; see that "
            "the server runs, or raise timeout= and tries="
        )

    def _brief(self, error: urllib.error.HTTPError, deadline: float) -> str:
        """What the server said, on one line; cut once the key is hidden, so that no half of it is left."""
        try:
            said = _body(error, deadline).decode(errors="replace")
        except (OSError, ValueError, http.client.HTTPException):
            said = ""
        return self._hidden(" ".join((said or str(error.reason)).split()))[:200]

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def at(reply: Any, *path: str | int) -> Any:
    """What lies at a path of keys and indices; None where the reply has another shape."""
    for step in path:
        fits = isinstance(reply, dict) if isinstance(step, str) else isinstance(reply, list)
        if not fits or (step not in reply if isinstance(step, str) else step >= len(reply)):
            return None
        reply = reply[step]
    return reply


def cut_off(reply: Any) -> bool:
    """Whether the token limit broke the text off."""
    return bool(at(reply, "choices", 0, "finish_reason") == "length")


def _key(name: str) -> str:
    """The key in an environment variable. Raises ValueError for none, and for one that no header can hold.

    Neither the key nor `name` is shown, since people type the key where its variable's name belongs.
    """
    usable = isinstance(name, str) and "\0" not in name
    key = os.environ.get(name, "").strip() if usable else ""
    if not key:
        raise ValueError(
            "got a key_env= that names no environment variable with a value; expected the name of the "
            "variable that holds the endpoint's key, such as OPENAI_API_KEY, and not the key; set it"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(
            "got other characters than a key has in the variable that key_env= names; expected printable "
            "ASCII without spaces; copy the key alone into that variable"
        )
    return key


def _body(reply: Any, deadline: float) -> bytes:
    """All that a server sends, at most `MOST` bytes.

    Raises TimeoutError if it is not done at `deadline` of `time.monotonic`, and ValueError if it is longer.
    """
    pieces, count = list[bytes](), 0
    while piece := reply.read1(PIECE):  # one read of the socket at most, which its own time-out limits
        if time.monotonic() > deadline:
            raise TimeoutError("the reply did not end in time")
        count += len(piece)
        if count > MOST:
            raise ValueError(
                f"got a reply of more than {MOST >> 20} MiB from the endpoint; expected a chat's; check url="
            )
        pieces.append(piece)
    return b"".join(pieces)


def _seconds(text: str | None) -> float:
    """A Retry-After header in seconds; 0 where it is absent or a date."""
    return float(text) if text and text.strip().isdigit() else 0.0
