"""Small files of known SHA-256 from the web: whole and as pinned, or not at all."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import subprocess
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

log = logging.getLogger(__name__)

SCHEMES = ("https",)
"""The schemes that an address and every redirect may have."""
MOST = 64 * 2**20
"""Bytes of the largest file that is fetched; it is held in memory until its hash is known."""
SECONDS = 30
"""The time limit in seconds for a connection, and for each part of the reply."""


def fetch(url: str, path: Path, *, sha256: str) -> Path:
    """Download `url` to `path`, which appears at once and complete -> `path`.

    Nothing is left behind otherwise. Raises ValueError for an address that is not https, also by a redirect,
    a file of over `MOST` bytes and one of another hash, OSError where the network or the disk refuses, or the
    reply is cut off.
    """
    _check_scheme(url)
    log.info("fetching %s to %s", url, path)
    try:
        with build_opener(_Redirects()).open(url, timeout=SECONDS) as reply:
            content = _whole(reply, url)
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    if (actual := hashlib.sha256(content).hexdigest()) != sha256.lower():
        raise ValueError(
            f"got {url} with SHA-256 {actual}; expected {sha256.lower()}; it was not kept: get the file from "
            "someone you trust and pass weights=FILE"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def command(url: str, path: Path) -> str:
    """The shell command that fetches the file by hand; curl comes with Windows, macOS and Linux."""
    words = ["--fail", "--location", "--create-dirs", "--output", str(path), url]
    if os.name == "nt":  # curl alone is another program in PowerShell
        return subprocess.list2cmdline(["curl.exe", *words])
    return shlex.join(["curl", *words])


def _whole(reply: Any, url: str) -> bytes:
    """The body of a reply, no longer and no shorter than it should be."""
    content: bytes = _limited(reply, url)
    length = reply.headers.get("Content-Length")
    if length is not None and len(content) != int(length):
        raise OSError(f"the connection broke after {len(content)} of {length} bytes")
    return content


def _limited(stream: IO[bytes], url: str) -> bytes:
    content = stream.read(MOST + 1)
    if len(content) > MOST:
        raise ValueError(f"got {url}, which has over {MOST} bytes; expected a small file; check the address")
    return content


class _Redirects(HTTPRedirectHandler):
    """Follows no redirect that leaves https."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        """The next request. Raises ValueError for an address of another scheme."""
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str) -> None:
    if urlsplit(url).scheme not in SCHEMES:
        raise ValueError(f"got address {url}; expected {' or '.join(SCHEMES)}://; give such an address")
