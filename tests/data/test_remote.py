"""Images at addresses, from a server on this machine that can be slow, broken, or no image's at all."""

import io
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from t2ialign.data import remote
from t2ialign.data.cache.keys import image_key
from t2ialign.data.images import open_rgb
from t2ialign.data.pair_writer import write_pairs
from t2ialign.data.pairs import read_pairs
from t2ialign.data.remote import Remote
from t2ialign.scoring.decode import Decoder
from t2ialign.scoring.prompts import Prompts
from t2ialign.scoring.rows import Columns
from t2ialign.scoring.sources import open_source

TOGETHER = 4
"""Requests that /together waits for before it answers any of them."""


def png(level: int = 7) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (level,) * 3).save(stream, "PNG")
    return stream.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Answers by the path; counts how often each was asked for."""

    fetched: Counter[str]
    barrier: threading.Barrier

    def log_message(self, *args) -> None:
        """Nothing to the terminal."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.fetched[path] += 1
        first = self.fetched[path] == 1
        if path.startswith("/together"):
            self.barrier.wait(5)
        if path == "/hangs":
            time.sleep(1)
        elif path in ("/500", "/404", "/429"):
            self.answer(int(path[1:]), b"no", **{"Retry-After": "0"})
        elif path == "/once" and first:
            self.answer(503, b"busy")
        elif path == "/page":
            self.answer(200, b"<html></html>", **{"Content-Type": "text/html; charset=utf-8"})
        elif path == "/text":
            self.answer(200, b"<html></html>")
        elif path == "/moved":
            self.answer(302, b"", Location="/a%20b.png")
        elif path == "/large":
            self.answer(200, b"", **{"Content-Length": str(10**12)})
        elif path == "/cut" and first:
            self.answer(200, png()[:40], **{"Content-Length": str(len(png()))})
        elif path == "/endless":
            self.answer(200, b"", **{"Content-Length": "100000"})
            for _ in range(60):
                self.wfile.write(b"x" * 100)
                time.sleep(0.02)
        else:
            self.answer(200, png())

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """Without a word about clients that hang up."""

    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """Nothing to the terminal."""


@pytest.fixture()
def fetched() -> Counter[str]:
    return Counter()


@pytest.fixture()
def address(fetched, monkeypatch) -> Iterator[str]:
    monkeypatch.setattr(remote, "WAIT", 0.001)
    monkeypatch.setattr(remote, "TIMEOUTS", (1.0, 0.2))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    handler = type("Asked", (Handler,), {"fetched": fetched, "barrier": threading.Barrier(TOGETHER)})
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("path", ["/a.png", "/a b \u00e9.png?x=1 2", "/moved", "/once", "/cut"])
def test_an_image_is_fetched_also_after_a_redirection_or_a_short_failure(address, path):
    assert np.asarray(open_rgb(Remote(address + path)))[0, 0].tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("path", "tries", "words"),
    [
        ("/404", 1, "got HTTP 404 Not Found; expected an image; check the address"),
        ("/500", 3, "got HTTP 500 Internal Server Error in 3 tries"),
        ("/429", 3, "got HTTP 429 Too Many Requests in 3 tries"),
        ("/hangs", 3, "got no answer within 0.2 s in 3 tries"),
        ("/page", 1, "got a web page (text/html)"),
        ("/text", 1, "got bytes of no known image format"),
        ("/large", 1, "got more than 256 MiB"),
    ],
)
def test_an_address_that_fails_is_named_on_one_line(address, fetched, path, tries, words):
    with pytest.raises(ValueError) as caught:
        open_rgb(Remote(address + path), name="row 3 winner")
    message = str(caught.value)
    assert message.startswith(f"row 3 winner: {address}{path}: got ") and words in message
    assert "\n" not in message and fetched[path] == tries


def test_what_comes_too_slowly_or_grows_too_large_is_given_up(address, monkeypatch):
    monkeypatch.setattr(remote, "DEADLINE", 0.2)
    with pytest.raises(ValueError, match=r"got \d+ bytes in 0\.2 s, and no end"):
        Remote(f"{address}/endless").fetch()
    monkeypatch.setattr(remote, "LIMIT", 50)
    monkeypatch.setattr(remote, "DEADLINE", 60.0)
    with pytest.raises(ValueError, match="got more than"):
        Remote(f"{address}/endless").fetch()


def test_a_server_cannot_ask_for_a_longer_wait_than_the_longest(address, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.answer(503, b"", **{"Retry-After": "86400"}))
    with pytest.raises(ValueError, match="HTTP 503"):
        Remote(f"{address}/x").fetch()
    assert [wait for wait in waits if wait >= 1] == [remote.LONGEST_WAIT] * 2


def test_nobody_listens_there(monkeypatch):
    monkeypatch.setattr(remote, "WAIT", 0.001)
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:1/a\.png: got no connection .*refused") as caught:
        Remote("http://127.0.0.1:1/a.png").fetch()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "words"),
    [("s3://bucket/a.png", "pip install s3fs"), ("gs://bucket/a.png", "pip install gcsfs")],
)
def test_storage_without_its_package_says_what_to_install(monkeypatch, address, words):
    def missing(*args, **kwargs):
        raise ImportError("Install the package to access it")

    monkeypatch.setattr("fsspec.open", missing)
    with pytest.raises(ValueError, match=rf"{address}: got no package for it .*: {words}; expected"):
        open_rgb(Remote(address))


def test_other_storage_is_read_through_fsspec(tmp_path):
    import fsspec

    with fsspec.open("memory://images/a.png", "wb") as file:
        file.write(png())
    assert open_rgb(Remote("memory://images/a.png")).size == (4, 4)


@pytest.mark.parametrize(
    "kind", ["nosuch://", "local://", "reference://a::memory://", "zip://a.png::memory://"]
)
def test_addresses_of_files_archives_and_chains_are_refused(kind, tmp_path):
    os.mkfifo(tmp_path / "pipe")  # which waits for ever
    with pytest.raises(ValueError, match=r"got an address of another kind than https://, .*; expected"):
        open_rgb(Remote(f"{kind}{tmp_path}/pipe"))


def test_a_long_address_is_cut_in_messages():
    assert len(str(Remote("https://host/" + "a" * 1000))) == remote.SHOWN


def test_rows_of_pairs_are_read_without_fetching_and_a_key_is_of_the_address(address, fetched, tmp_path):
    row = {"prompt": "p", "chosen": f"{address}/a.png", "rejected": f" {address}/b.png"}
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    (record,) = read_pairs(str(tmp_path / "p.jsonl"))
    assert (record.win, record.lose) == (Remote(f"{address}/a.png"), Remote(f"{address}/b.png"))
    assert image_key(record.win) == image_key(Remote(f"{address}/a.png")) != image_key(record.lose)
    assert not fetched
    write_pairs(tmp_path / "o.jsonl", [(record, {})])
    assert json.loads((tmp_path / "o.jsonl").read_text())["jpg_0"] == f"{address}/a.png"
    assert not fetched, "JSON lines name the address"
    write_pairs(tmp_path / "o.parquet", [(record, {})])
    (again,) = read_pairs(str(tmp_path / "o.parquet"))
    assert again.win == again.lose == png()


def test_a_batch_to_score_is_fetched_several_at_a_time_and_each_address_once(address, fetched, tmp_path):
    paths = [*(f"/together/{i}" for i in range(TOGETHER)), "/404", "/together/0"]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"image": address + path}) + "\n" for path in paths))
    items = list(open_source(str(tmp_path / "t.jsonl"), Prompts(), Columns()).items())
    assert not fetched and [item.file for item in items] == [address + path for path in paths]
    batch = Decoder([], raw=True).decode(items)
    assert batch.good == [0, 1, 2, 3, 5] and len(batch.raw) == 5
    assert (
        batch.items[4].error
        == f"{address}/404: got HTTP 404 Not Found; expected an image; check the address, or drop its row"
    )
    assert all(item.image is None for item in batch.items)
    assert set(fetched.values()) == {1}
