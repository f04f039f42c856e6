"""The documentation names only files, modules and objects of the project that exist."""

import importlib
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "rewards/README.md")),
]
TOPS = "t2ialign|rewards|scripts|tests|assets|proofs|docs"
TO_WRITE = re.compile(r"[Ww]rite (?:the recipe )?`([\w./]+)`")
"""A file that a recipe of CONTRIBUTING.md has the reader write."""
LATER = {"proofs/SUBJECT.files.json", "proofs/gpu.json", "t2ialign/recipes"}
"""What `t2ialign prove` and a GPU check write with the next measurement, and what the wheel alone has."""
PLACEHOLDER = re.compile(r"SUBJECT|VERB|NAME")
"""Capitals that stand for any of several names, as in proofs/SUBJECT.json."""


def spans(text: str) -> list[str]:
    """What stands in backticks outside of blocks of code."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))


def paths(text: str) -> set[str]:
    """Files and folders of the project in backticks, such as `rewards/base.py`, with patterns as they are."""
    found = (re.findall(rf"(?<![\w./\-])(?:{TOPS})/[\w./*\-]*", span) for span in spans(text))
    return {path.rstrip(".") for each in found for path in each}


def dotted(text: str) -> set[str]:
    """Modules and objects of the project in backticks, such as `rewards.vlm.base.Judge`."""
    names = r"(?<![\w./\-])(?:t2ialign|rewards|scripts|tests)(?:\.[A-Za-z_]\w*)+(?![\w/])"
    return {name for span in spans(text) for name in re.findall(names, span)}


def is_there(path: str) -> bool:
    """Whether a file or folder exists, or a pattern or a name with a placeholder fits one."""
    pattern = PLACEHOLDER.sub("*", path)
    return any(ROOT.glob(pattern.rstrip("/"))) if "*" in pattern else (ROOT / path).exists()


@cache
def exists(name: str) -> bool:
    """Whether a dotted name is a module, or an object that its module holds."""
    module, *rest = name.split(".")
    value = importlib.import_module(module)
    for depth, part in enumerate(rest, start=2):
        if not hasattr(value, part):
            try:
                importlib.import_module(".".join(name.split(".")[:depth]))
            except ModuleNotFoundError:
                return False
        value = getattr(value, part)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    written = set(TO_WRITE.findall(text))
    assert not {path for path in paths(text) - written - LATER if not is_there(path)}
    assert not {name for name in dotted(text) if not exists(name)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not {link for link in links if not (page.parent / link).exists()}


def test_names_are_found_in_pages() -> None:
    text = "`rewards/base.py`, `from rewards.base import Reward`\n```bash\ncat `rewards/none.py`\n```\n"
    assert paths(text) == {"rewards/base.py"} and dotted(text) == {"rewards.base"}
    assert sum(len(paths(page.read_text(encoding="utf-8"))) for page in PAGES) > 100
    assert sum(len(dotted(page.read_text(encoding="utf-8"))) for page in PAGES) > 20


def test_stale_names_are_told() -> None:
    assert is_there("rewards/base.py") and is_there("rewards/scorers/") and is_there("proofs/SUBJECT.json")
    assert not is_there("rewards/hpsv2.py") and not is_there("proofs/SUBJECT.nothing")
    assert exists("rewards.load") and exists("rewards.vlm.base.Judge") and exists("t2ialign.Policy")
    assert not exists("rewards.hpsv2") and not exists("rewards.vlm.base.Nobody")
