"""Images at addresses: fetched when their pixels are needed, tried again where that may help, checked."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from t2ialign.version import __version__

TRIES = 3
WAIT = 0.5
"""Seconds before the second try; they double from try to try."""
LONGEST_WAIT = 30.0
"""The longest wait in seconds, whatever a server requests."""
TIMEOUTS = (10.0, 20.0)
"""Seconds to wait for a connection, and for the next bytes."""
DEADLINE = 120.0
"""Seconds that one try may take in all."""
LIMIT = 256 * 2**20
"""Bytes of an image at most."""
CHUNK = 2**16
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses after which the same request may succeed."""
STORES = (
    *("hf", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "ftp", "sftp", "ssh"),
    *("hdfs", "webhdfs", "memory"),
)
"""Kinds of address that fsspec may open: places elsewhere, not files, archives or chains of addresses."""
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""The packages that fsspec needs for each kind of address."""
SHOWN = 160
"""Characters of an address that a message quotes."""


@dataclass(frozen=True)
class Remote:
    """An image at an address: https://, http://, or one of `STORES` that fsspec opens, as hf:// and s3://."""

    address: str

    def __str__(self) -> str:
        """The address, cut for a message."""
        return self.address if len(self.address) <= SHOWN else f"{self.address[: SHOWN - 3]}..."

    def fetch(self) -> bytes:
        """The content at an address. Raises ValueError, naming it, if it cannot be read or is too large."""
        web = re.match(r"https?://", self.address, re.IGNORECASE)
        try:
            content = _from_web(self.address) if web else _from_storage(self.address)
        except _Unreachable as problem:
            raise ValueError(
                f"{self}: got {problem}; expected an image; check the address, or drop its row"
            ) from problem
        return content


class _Unreachable(Exception):
    """Why an address gives nothing; `again` says whether to try again, `after` when at the earliest."""

    def __init__(self, reason: str, *, again: bool = False, after: float = 0.0) -> None:
        super().__init__(reason)
        self.again, self.after = again, after


def _from_web(address: str) -> bytes:
    for number in range(TRIES):
        try:
            return _once(address)
        except _Unreachable as problem:
            if not problem.again:
                raise
            if number == TRIES - 1:
                raise _Unreachable(f"{problem} in {TRIES} tries") from problem
            time.sleep(min(max(problem.after, WAIT * 2**number), LONGEST_WAIT))
    raise AssertionError("TRIES is at least 1")


def _once(address: str) -> bytes:
    import requests
    from urllib3.exceptions import HTTPError, LocationParseError, ReadTimeoutError

    headers = {"User-Agent": f"t2ialign/{__version__}", "Accept": "image/*,*/*;q=0.5"}
    late = _Unreachable(f"no answer within {TIMEOUTS[1]:g} s", again=True)
    try:
        with requests.get(address, headers=headers, timeout=TIMEOUTS, stream=True) as response:
            _check(response.status_code, response.headers)
            return _content(response.raw)
    except (requests.Timeout, ReadTimeoutError) as error:
        raise late from error
    except (requests.ConnectionError, HTTPError) as error:
        again = not isinstance(error, requests.exceptions.SSLError | LocationParseError)
        raise _Unreachable(f"no connection that lasts ({_reason(error)})", again=again) from error
    except requests.RequestException as error:
        raise _Unreachable(_reason(error)) from error


def _check(status: int, headers: Mapping[str, str]) -> None:
    """Raises _Unreachable for a status other than success, a web page and what is too large."""
    if status != HTTPStatus.OK:
        names = {one.value: one.phrase for one in HTTPStatus}
        after = headers.get("Retry-After", "")
        raise _Unreachable(
            f"HTTP {status} {names.get(status, '')}".rstrip(),
            again=status in TRANSIENT,
            after=float(after) if after.isdecimal() else 0.0,
        )
    if headers.get("Content-Type", "").lower().startswith("text/html"):
        raise _Unreachable("a web page (text/html)")
    if (length := headers.get("Content-Length", "")).isdecimal() and int(length) > LIMIT:
        raise _too_large()


def _content(stream: Any) -> bytes:
    """The content of a response, read as it comes, so that a server that only trickles is given up."""
    content, end = bytearray(), time.monotonic() + DEADLINE
    while chunk := stream.read1(CHUNK, decode_content=True):
        content += chunk
        if len(content) > LIMIT:
            raise _too_large()
        if time.monotonic() > end:
            raise _Unreachable(f"{len(content)} bytes in {DEADLINE:g} s, and no end")
    return bytes(content)


def _from_storage(address: str) -> bytes:
    """By fsspec. What its back ends raise is theirs to choose, so anything is taken for a failure."""
    import fsspec

    kind = address.partition("://")[0].lower()
    if kind not in STORES or "::" in address:  # a file may be a pipe, and a chain may open anything
        raise _Unreachable(f"an address of another kind than https://, http://, {'://, '.join(STORES)}://")
    try:
        with fsspec.open(address, "rb") as file:
            content: bytes = file.read(LIMIT + 1)
    except ImportError as error:
        package = PACKAGES.get(urlsplit(address).scheme.lower())
        how = f": pip install {package}" if package else ""
        raise _Unreachable(f"no package for it ({_reason(error)}){how}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise _Unreachable(_reason(error)) from error
    if len(content) > LIMIT:
        raise _too_large()
    return content


def _too_large() -> _Unreachable:
    return _Unreachable(f"more than {LIMIT // 2**20} MiB")


def _reason(error: Exception) -> str:
    """The reason of a failure on one line, without the objects that requests wraps it in."""
    first = error.args[0] if error.args else error
    text = " ".join((first if isinstance(first, str) else str(getattr(first, "reason", error))).split())
    return re.sub(r"^.*?\w+\(host=[^)]*\): ", "", text)[:SHOWN] or type(error).__name__
