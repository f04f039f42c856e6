"""A real chat server on 127.0.0.1 for tests: each reply is made by the test's own function."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

Reply = tuple[int, Any, dict[str, str]]
"""Status, body (bytes as they are, an iterator of them piece by piece, anything else as JSON), headers."""


class ChatServer:
    """Answers POSTs with `answer(request)`; keeps what was asked in `requests` and `headers`."""

    def __init__(self, answer: Callable[[dict[str, Any]], Reply]) -> None:
        owner = self
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock, self.now, self.most = threading.Lock(), 0, 0

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request = {"path": self.path, **body}
                with owner.lock:
                    owner.requests.append(request)
                    owner.headers.append(dict(self.headers))
                    owner.now += 1
                    owner.most = max(owner.most, owner.now)
                try:
                    status, payload, headers = answer(request)
                finally:
                    with owner.lock:
                        owner.now -= 1
                data = payload if isinstance(payload, bytes | Iterator) else json.dumps(payload).encode()
                length = {} if isinstance(data, Iterator) else {"Content-Length": str(len(data))}
                try:
                    self.send_response(status)
                    for name, value in {**length, **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    for piece in data if isinstance(data, Iterator) else [data]:
                        self.wfile.write(piece)
                except (BrokenPipeError, ConnectionResetError):
                    return  # the client gave up, which is what a time-out test wants

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def __enter__(self) -> "ChatServer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def question(request: dict[str, Any]) -> str:
    return request["messages"][0]["content"][1]["text"]


def sent_image(request: dict[str, Any]) -> Image.Image:
    head, _, data = request["messages"][0]["content"][0]["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def listing(**logprobs: float) -> dict[str, Any]:
    """A reply whose first token has these likeliest candidates; an underscore stands for a space."""
    entries = [{"token": token.replace("_", " "), "logprob": value} for token, value in logprobs.items()]
    first = {**entries[0], "top_logprobs": entries}
    return {"choices": [{"message": {"content": entries[0]["token"]}, "logprobs": {"content": [first]}}]}


def says(text: Any, finish_reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": finish_reason}]}
