"""A client of OpenAI-compatible chat endpoints: tries again what passes, and keeps the key to itself."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.request import getproxies, proxy_bypass

import httpx
from anyio.from_thread import start_blocking_portal
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential

from rewards import user_code

T = TypeVar("T")

AGAIN = {408, 409, 429, 500, 502, 503, 504}
"""Statuses that pass: too many requests, and trouble on the server's side."""
LONGEST = 60.0
"""Seconds of the longest wait between tries."""
MOST = 8 << 20
"""Bytes of the longest reply that is read; a chat's are a thousandth of it."""


class _Passing(Exception):
    """Trouble that another try may not meet; `seconds` is the wait that the server asks for."""

    def __init__(self, trouble: str, seconds: float = 0.0) -> None:
        super().__init__(trouble)
        self.seconds = seconds


class ChatClient:
    """Asks `model` behind `url` (".../v1"), `workers` requests at a time.

    `key_env` names the environment variable that holds the key; no key is sent without it. `extra` joins each
    request ({"chat_template_kwargs": {"enable_thinking": False}}). A try is given up when its reply has not
    ended after `timeout` seconds. Time-outs, 429, 5xx and broken replies are tried `tries` times in all,
    after `wait`, 2 `wait`, ... seconds or what the server asks for. Replies of more than `MOST` bytes are
    refused, and so are redirects, which would carry the key to another host. Raises ValueError for a URL that
    is not one, and for a variable that is not set or holds no key.
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
        if not _is_plain(url):
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

    def ask(self, chats: Sequence[Mapping[str, Any]], read: Callable[[Any], T]) -> list[T]:
        """N chats, {"messages": [...], "max_tokens": ...} -> what `read` makes of each reply's JSON.

        The temperature is 0 unless a chat or `extra` says otherwise. The first failure, and Ctrl-C, end the
        rest at once. Raises ValueError when the server refuses, after the last try, and as `read` does.
        """
        with start_blocking_portal() as portal:  # a loop of its own thread: a notebook's thread runs one
            return portal.call(self._ask, chats, read)

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

    async def _ask(self, chats: Sequence[Mapping[str, Any]], read: Callable[[Any], T]) -> list[T]:
        free = asyncio.Semaphore(self.workers)

        async def one(chat: Mapping[str, Any]) -> T:
            async with free:
                return read(await self._send(session, chat))

        async with self._session() as session:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(chat)) for chat in chats]
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    def _session(self) -> httpx.AsyncClient:
        """Connections for the requests of one call. Raises ValueError for a proxy that cannot be used."""
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}  # `MOST` counts these
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        address = httpx.URL(self.url)
        proxy = None if proxy_bypass(address.netloc.decode()) else getproxies().get(address.scheme)
        system = ssl.create_default_context()  # the system's certificates, which may hold a company's own
        try:
            return httpx.AsyncClient(
                headers=headers,
                proxy=proxy,
                verify=system,
                timeout=None,  # `_post` limits a whole try
                limits=httpx.Limits(),  # `_ask` limits the requests
                trust_env=False,  # or a SOCKS proxy that this address does not need would be an error
            )
        except (ImportError, ValueError, httpx.InvalidURL):
            raise ValueError(
                f"got a proxy for {address.scheme} that cannot be used; expected http(s)://HOST:PORT; "
                f"correct the variable {address.scheme}_proxy, or name {address.host} in no_proxy"
            ) from None

    async def _send(self, session: httpx.AsyncClient, chat: Mapping[str, Any]) -> Any:
        """The reply's JSON, after as many tries as it takes."""
        data = json.dumps({"model": self.model, "temperature": 0, **chat, **self.extra}).encode()
        again = AsyncRetrying(
            stop=stop_after_attempt(self.tries),
            wait=self._pause,
            retry=retry_if_exception_type(_Passing),
            reraise=True,
        )
        try:
            return await again(self._try, session, data)
        except _Passing as trouble:
            raise ValueError(
                f"got {trouble} from {self.url} in the last of {self.tries} tries; expected a reply; see "
                "that the server runs, or raise timeout= and tries="
            ) from None

    def _pause(self, state: RetryCallState) -> float:
        """Seconds before the next try."""
        trouble = state.outcome and state.outcome.exception()
        wanted = trouble.seconds if isinstance(trouble, _Passing) else 0.0
        return max(min(wanted, LONGEST), wait_exponential(multiplier=self.wait, max=LONGEST)(state))

    async def _try(self, session: httpx.AsyncClient, data: bytes) -> Any:
        """The JSON of one reply. Raises `_Passing`, and ValueError where another try would not help."""
        try:
            reply, body = await self._post(session, data)
        except (TimeoutError, httpx.TransportError) as error:
            reason = str(error) or f"no whole reply in {self.timeout:g} seconds"
            raise _Passing(self._hidden(f"{type(error).__name__} ({reason})")) from None
        if reply.is_success:
            try:
                return json.loads(body)
            except (ValueError, RecursionError):
                raise _Passing("a reply that is not JSON") from None
        words = " ".join((body.decode(errors="replace") or reply.reason_phrase).split())
        # cut once the key is hidden, so that no half of it is left
        trouble = f"status {reply.status_code} ({self._hidden(words)[:200]})"
        if reply.status_code in AGAIN:
            raise _Passing(trouble, _seconds(reply.headers.get("Retry-After")))
        raise ValueError(
            f"got {trouble} from {self.url}; expected 200; check the address, the key, the "
            f"model's name {self.model!r} and that it takes what it was sent (images?)"
        )

    async def _post(self, session: httpx.AsyncClient, data: bytes) -> tuple[httpx.Response, bytes]:
        """A reply and its body, b"" where an error's does not end.

        Raises TimeoutError, httpx.TransportError, and ValueError for a reply that is too long.
        """
        deadline = asyncio.get_running_loop().time() + self.timeout
        async with asyncio.timeout_at(deadline):
            reply = await session.send(session.build_request("POST", self.url, content=data), stream=True)
        try:
            async with asyncio.timeout_at(deadline):
                return reply, await _body(reply)
        except (TimeoutError, ValueError, httpx.TransportError):
            if reply.is_success:
                raise
            return reply, b""
        finally:
            await reply.aclose()

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


def _is_plain(url: str) -> bool:
    """Whether a path can be added to it; keys hide in users, queries and fragments."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.host)
        and not (parts.userinfo or set("?#") & set(url))
    )


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


async def _body(reply: httpx.Response) -> bytes:
    """All that a server sends. Raises ValueError if it is more than `MOST` bytes."""
    body = bytearray()
    async for piece in reply.aiter_raw():
        body += piece
        if len(body) > MOST:
            raise ValueError(
                f"got a reply of more than {MOST >> 20} MiB from the endpoint; expected a chat's; check url="
            )
    return bytes(body)


def _seconds(text: str | None) -> float:
    """A Retry-After header in seconds; 0 where it is absent or a date."""
    return float(text) if text and text.strip().isdecimal() else 0.0
