"""docs/python.md: every example runs, in order, in an empty folder, and each function is shown."""

import re
from pathlib import Path
from typing import Any

import pytest

import t2ialign

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.rest
def test_every_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"{PAGE.name}, example {number}", "exec"), names)
    assert len(names["samples"]) == len(names["base"]) == len(names["aligned"]) == 4
    assert names["again"].new == 0 and len(names["seen"]) == 2
    assert (tmp_path / "redder.safetensors").is_file()


def test_every_function_and_class_is_shown() -> None:
    text = PAGE.read_text(encoding="utf-8")
    functions = [name for name in t2ialign.__all__ if name[0].islower()]
    assert [name for name in functions if f"`{name}(" not in text and f"t2ialign.{name}(" not in text] == [
        "load_policy"
    ]
    kinds = {name.removesuffix("Trainer") for name in t2ialign.__all__ if name.endswith("Trainer")}
    assert all(f"`{kind}`" in text or f"`{kind}Trainer`" in text for kind in kinds)
