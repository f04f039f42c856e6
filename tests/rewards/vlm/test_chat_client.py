"""The client of chat endpoints: waits, Ctrl-C, proxies, and a key that stays hidden."""

import asyncio
import gzip
import logging
import os
import signal
import threading
import time
import traceback
from functools import partial

import pytest

from rewards.llm import chat_client
from rewards.llm.chat_client import ChatClient
from tests.rewards.chat_server import ChatServer, Reply, says

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
HELLO: Reply = (200, says("hello yourself"), {})


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def client(url: str, **options) -> ChatClient:
    return ChatClient(url, "tiny", **{"wait": 0.01, "tries": 1, "timeout": 5.0, **options})


def ask(client: ChatClient, count: int = 1) -> list[str]:
    return client.ask([CHAT] * count, client.text)


def test_waits_double_up_to_the_longest_or_are_what_the_server_asks_for(monkeypatch):
    waits: list[float] = []
    after = iter(["", "7", "3600", "Wed, 21 Oct 2026 07:28:00 GMT", "\u00b2", "1"])

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr(chat_client, "AsyncRetrying", partial(chat_client.AsyncRetrying, sleep=sleep))
    with (
        ChatServer(lambda _: (429, b"", {"Retry-After": next(after, "")})) as server,
        pytest.raises(ValueError, match="in the last of 9 tries"),
    ):
        ask(client(server.url, wait=1.0, tries=9))
    assert waits == [1, 7, 60, 8, 16, 32, 60, 60]


def test_the_key_is_in_no_log_and_no_chained_error(monkeypatch, caplog):
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    caplog.set_level(logging.DEBUG)
    replies = iter([(500, b"sk-very-secret", {}), HELLO])
    with ChatServer(lambda _: next(replies)) as server:
        ours = client(server.url, key_env="JUDGE_KEY", tries=2)
        assert ask(ours) == ["hello yourself"]
    with pytest.raises(ValueError, match="got ConnectError") as caught:
        ask(ours)
    assert any(record.name.startswith("http") for record in caplog.records), "what httpx and httpcore log"
    assert "sk-very" not in caplog.text + "".join(traceback.format_exception(caught.value)) + repr(ours)


@pytest.fixture
def interrupts():
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's & leaves ignored
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("moment", ["a worker waits for a reply", "a worker waits for its next try"])
def test_ctrl_c_ends_all_requests_at_once(interrupts, moment):
    """Both workers have a request, which would take ten seconds more."""
    arrived, released = threading.Semaphore(0), threading.Event()

    def answer(_):
        arrived.release()
        if moment == "a worker waits for a reply":
            released.wait(10)
        return 503, b"", {"Retry-After": "10"}

    def press():
        arrived.acquire()
        arrived.acquire()
        time.sleep(0.2)  # the server's words are on their way
        os.kill(os.getpid(), signal.SIGINT)

    with ChatServer(answer) as server:
        thread = threading.Thread(target=press)
        thread.start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            ask(client(server.url, workers=2, timeout=20.0, tries=5), count=5)
        assert time.monotonic() - start < 2.0
        released.set()
        thread.join()
    assert len(server.requests) == 2, "a request was made after it"
    assert not [thread.name for thread in threading.enumerate() if "portal" in thread.name]


def test_it_answers_where_a_loop_runs_already():
    """As in a notebook."""

    async def cell() -> list[str]:
        return ask(client(server.url))

    with ChatServer(lambda _: HELLO) as server:
        assert asyncio.run(cell()) == ["hello yourself"]


def test_a_reply_is_never_unpacked():
    """A packed one could be a thousand times as long as what is counted."""
    packed = gzip.compress(b" " * (1 << 22))
    with (
        ChatServer(lambda _: (200, packed, {"Content-Encoding": "gzip"})) as server,
        pytest.raises(ValueError, match="got a reply that is not JSON"),
    ):
        ask(client(server.url))
    assert server.headers[0]["Accept-Encoding"] == "identity"


def test_the_proxy_is_the_one_for_the_address(monkeypatch):
    """One in ALL_PROXY that only other programs can use is none of ours."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    elsewhere = client("http://elsewhere.invalid/v1")
    with ChatServer(lambda _: HELLO) as server:
        ask(client(server.url))
        monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
        ask(elsewhere)
    assert server.requests[1]["path"] == "http://elsewhere.invalid/v1/chat/completions"
    monkeypatch.setenv("http_proxy", "gopher://user:pass@host")
    with pytest.raises(ValueError, match="got a proxy for http that cannot be used") as caught:
        ask(elsewhere)
    assert "pass" not in "".join(traceback.format_exception(caught.value))


def test_an_address_with_its_port_may_be_left_out_of_the_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with ChatServer(lambda _: HELLO) as server:
        monkeypatch.setenv("no_proxy", server.url.removeprefix("http://").removesuffix("/v1"))
        assert ask(client(server.url)) == ["hello yourself"]
