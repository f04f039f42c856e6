"""What counts as a fault: of one command, of its output beside that of an undisturbed run, and of a page."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from html.parser import HTMLParser
from typing import Any, Protocol

LONGEST = 3000
"""Characters of a line of a message: a longer one quotes what it should name."""
TOLERANCE = 2e-3

Rows = list[tuple[str, Any]]
"""(what identifies a row, its content) of everything that a run has to leave behind."""


class Ended(Protocol):
    """What is judged of a command."""

    code: int | None
    ended_by_us: str

    @property
    def text(self) -> str: ...

    @property
    def errors(self) -> list[str]: ...


def faults(run: Ended, *codes: int) -> Iterator[str]:
    """Why a command that may end with these codes, or with 2 and one line, ended badly."""
    if run.ended_by_us in ("time", "memory"):
        yield f"stopped for its {run.ended_by_us}"
    if "Traceback (most recent call last)" in run.text:
        yield f"traceback: {run.text.strip().splitlines()[-1][:200]}"
    elif run.code not in (*codes, 2) and run.ended_by_us != "time" and run.ended_by_us != "memory":
        yield f"exit code {run.code}: {run.text.strip()[-200:]}"
    if run.code == 2 and len(run.errors) != 1:
        yield f"exit code 2 with {len(run.errors)} lines of error: {run.text.strip()[-200:]}"
    if (longest := max(map(len, run.text.splitlines()), default=0)) > LONGEST:
        yield f"a line of {longest} characters"


def differences(whole: Rows, rows: Rows) -> list[str]:
    """What is lost, doubled, new or changed beside the rows of an undisturbed run; a few of each."""
    before, after = Counter(key for key, _ in whole), Counter(key for key, _ in rows)
    found = [f"lost {key}" for key in list(before - after)[:3]]
    found += [f"doubled {key}" for key in before if after[key] > before[key]][:3]
    found += [f"new {key}" for key in after if key not in before][:3]
    known = dict(whole)
    return (
        found + [f"changed {key}" for key, value in rows if key in known and not close(known[key], value)][:3]
    )


def close(a: Any, b: Any) -> bool:
    """Whether two pieces of JSON are the same but for the last bits of their numbers."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(close, a, b))
    if isinstance(a, float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE) or a is b
    return bool(a == b)


def refusal(run: Ended, name: str) -> Iterator[str]:
    """Why this is not the refusal of a second run, in one line that names what is in use."""
    if run.code != 2:
        yield f"a second run was not refused (exit code {run.code})"
    elif len(run.errors) != 1 or name not in run.errors[0]:
        yield f"a refusal that does not name {name}: {run.text.strip()[-200:]}"


class Page(HTMLParser):
    """Counts what runs or fetches something when a page is opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.scripts = 0
        self.active: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag in ("iframe", "object", "embed", "base", "form", "link"):
            self.active.append(f"<{tag}>")
        self.scripts += tag == "script"
        for name, value in attrs:
            address = (value or "").strip().lower()
            if name.startswith("on") or address.startswith("javascript:"):
                self.active.append(f"{name}={address[:60]}")
            if name in ("src", "href") and ":" in address.partition("/")[0] and address[:5] != "data:":
                self.active.append(f"{name}={address[:60]}")


def hostile(html: str, *, scripts: int = 0) -> list[str]:
    """What a page would run; scripts: how many are the toolkit's own."""
    page = Page(html)
    return page.active[:3] + ([f"{page.scripts} scripts"] if page.scripts != scripts else [])


def json_lines(text: str, *keys: str) -> Rows:
    """The rows of JSON lines by the values of some keys."""
    rows = [json.loads(line) for line in text.splitlines()]
    return [(" ".join(str(row.get(key)) for key in keys), row) for row in rows]


def joined(parts: Iterable[tuple[str, Rows]]) -> Rows:
    """Rows of several files, each under the name of its file."""
    return [(f"{name}: {key}", value) for name, rows in parts for key, value in rows]
