"""Files with a pinned hash: fetched whole and verified from a real server, or nothing is left behind."""

import hashlib
import os
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
import torch

import rewards
from rewards import fetch
from rewards.scorers import aesthetic
from rewards.weights import find, home
from tests.rewards import tiny_clip
from tests.rewards.scorers.test_aesthetic import file_of, published

BODY = bytes(range(256)) * 40
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files` by path; counts what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/whole": BODY, "/cut": BODY, "/unsized": BODY}
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """/cut breaks off, /unsized says no length, /elsewhere and /again redirect."""

    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        if self.path in ("/elsewhere", "/again"):
            self.send_response(302)
            target = "ftp://127.0.0.1/whole" if self.path == "/elsewhere" else f"{self.server.url}/whole"
            self.send_header("Location", target)
            self.end_headers()
            return
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unsized":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:999] if self.path == "/cut" else body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of this machine, whose http stands for the https of the real one."""
    monkeypatch.setattr(fetch, "SCHEMES", ("http",))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield one
        one.shutdown()
        thread.join()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("where", ["/whole", "/unsized", "/again"])
def test_a_file_arrives_whole(server, tmp_path, where):
    path = tmp_path / "a" / "b" / "file.pth"
    assert fetch.fetch(server.url + where, path, sha256=SHA256.upper()) == path
    assert path.read_bytes() == BODY
    assert [file.name for file in path.parent.iterdir()] == ["file.pth"]


@pytest.mark.parametrize(
    ("where", "sha256", "kind", "words"),
    [
        ("/whole", "0" * 64, ValueError, f"with SHA-256 {SHA256}; expected {'0' * 64}; it was not kept"),
        ("/cut", SHA256, OSError, f"the connection broke after 999 of {len(BODY)} bytes"),
        ("/missing", SHA256, OSError, "HTTP Error 404"),
        (
            "/elsewhere",
            SHA256,
            ValueError,
            "got address ftp://127.0.0.1/whole; expected http://; give such an address",
        ),
    ],
)
def test_anything_else_leaves_nothing_behind(server, tmp_path, where, sha256, kind, words):
    with pytest.raises(kind, match=words):
        fetch.fetch(server.url + where, tmp_path / "home" / "file.pth", sha256=sha256)
    assert list(tmp_path.rglob("*")) == []
    old = tmp_path / "file.pth"
    old.write_bytes(b"older")
    with pytest.raises(kind):
        fetch.fetch(server.url + where, old, sha256=sha256)
    assert old.read_bytes() == b"older" and list(tmp_path.iterdir()) == [old]


def test_a_large_file_is_not_read_to_its_end(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "MOST", 1000)
    with pytest.raises(ValueError, match="which has over 1000 bytes"):
        fetch.fetch(f"{server.url}/whole", tmp_path / "file.pth", sha256=SHA256)
    assert list(tmp_path.iterdir()) == []


def test_only_https_is_fetched(tmp_path):
    assert fetch.SCHEMES == ("https",)
    for url in ("http://example.org/a", "file:///etc/hostname", "ftp://example.org/a", "data:,a"):
        with pytest.raises(ValueError, match="expected https://; give such an address"):
            fetch.fetch(url, tmp_path / "a", sha256=SHA256)
    for head in aesthetic.HEADS.values():
        assert head.url.startswith("https://raw.githubusercontent.com/") and " " not in head.url


def test_without_a_network_the_error_has_the_command(server, tmp_path, monkeypatch, online):
    """A server that is gone; then the command of the error is run as it stands, with the server back."""
    monkeypatch.setenv("T2IALIGN_WEIGHTS", str(tmp_path / "my weights"))
    with pytest.raises(ValueError, match="Connection refused") as caught:
        find("org/name", "file.pth", sha256=SHA256, url="http://127.0.0.1:9/whole")
    text = str(caught.value)
    assert text.startswith("got no file.pth (") and "\n" not in text
    command = shlex.split(text.partition("fetch it with: ")[2])
    target = tmp_path / "my weights" / "org" / "name" / "file.pth"
    assert command[-3:] == ["--output", str(target), "http://127.0.0.1:9/whole"]
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    subprocess.run(fetch.command(f"{server.url}/again", target), shell=True, check=True, capture_output=True)
    assert find("org/name", "file.pth", sha256=SHA256, url="http://127.0.0.1:9/whole") == target


def test_offline_mode_asks_nobody(server, tmp_path, monkeypatch):
    monkeypatch.setenv("T2IALIGN_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"HF_HUB_OFFLINE is set\).* fetch it with: curl"):
        find("org/name", "file.pth", sha256=SHA256, url=f"{server.url}/whole")
    assert server.requests == []


def test_home_is_the_users_cache_unless_set(tmp_path, monkeypatch):
    monkeypatch.delenv("T2IALIGN_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home() == tmp_path / "t2ialign" / "weights"
    monkeypatch.setenv("T2IALIGN_WEIGHTS", str(tmp_path / "mine"))
    assert home() == tmp_path / "mine"


def test_the_command_on_windows_is_quoted_for_windows(monkeypatch):
    monkeypatch.setattr(os, "name", "nt")
    line = fetch.command("https://a/b", "C:/my weights/f.pth")
    assert line.startswith("curl.exe --fail") and '"C:/my weights/f.pth"' in line


@published
@pytest.mark.parametrize("head", ["laion-v2-l14", "laion-v1-b32", "simulacra-b16"])
def test_a_released_head_is_fetched_once(head, server, tmp_path, monkeypatch, online):
    """From a server that has the file where GitHub has it."""
    known = aesthetic.HEADS[head]
    path = f"/{known.repository}/{aesthetic.COMMITS[known.repository]}/{known.file.replace('+', '%2B')}"
    server.files[path] = file_of(head).read_bytes()
    monkeypatch.setattr(aesthetic, "RAW", server.url)
    monkeypatch.setenv("T2IALIGN_WEIGHTS", str(tmp_path / "home"))
    clip = str(tiny_clip.save_folder(tiny_clip.random_model(), tmp_path / "clip"))
    for _ in range(2):
        reward = rewards.load("aesthetic", head=head, clip=clip)
        assert torch.equal(reward.weight, aesthetic.affine(aesthetic.load_state(file_of(head)))[0])
    assert server.requests == [path]
    server.files[path] = b"another file"
    (tmp_path / "home" / known.repository / known.file).unlink()
    with pytest.raises(ValueError, match=r"it was not kept"):
        rewards.load("aesthetic", head=head, clip=clip)
    assert [file for file in (tmp_path / "home").rglob("*") if file.is_file()] == []
