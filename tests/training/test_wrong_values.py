"""Any value for any setting of any method, however it is given: taken, or refused on one short line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from t2ialign import config
from t2ialign.config import Config
from t2ialign.io.messages import MESSAGE, one_line
from t2ialign.overrides import as_overrides
from t2ialign.training.methods import load_method, methods

NUMBERS = ("-1", "0", "9223372036854775808", "-9223372036854775809", "1e400", "-1e400", "nan", ".inf")
TEXTS = ("", " ", "none", "true", "1:30", "0x10", "007", "2026-01-01", "a\0b", "\udc80", "\x1b]0;\x07")
SHAPES = ("[]", "{}", "[[]]", "[1, 2", "{a: 1}", "[null]", "&a [*a]", "!!python/name:os.system", "? [a]")
LONG = ("x" * 100_000, "[" * 1_000, "{a: " * 300)
WORDS = (*NUMBERS, *TEXTS, *SHAPES, *LONG)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**63,
    2**70,
    1.5,
    "",
    "a b",
    [],
    [None],
    [[]],
    {},
    {"a": 1},
    {1: {2: []}},
    "y" * 9999,
)
EACH = 2
"""How many values a setting is given: those that follow the ones of the setting before."""


def refusals(cls: type[Config], key: str, value: str, file: Path) -> Iterator[str]:
    """What is said to a setting in each of its forms; nothing to one that is taken."""
    ways = [lambda: config.load(cls, None, [f"{key}={value}"])]
    ways += [lambda: config.load(cls, None, as_overrides(["m", f"--{key}", value], ["m"], lambda _: cls)[1:])]
    ways += [lambda: config.load(cls, file)]
    for load in ways:
        try:
            settings = load()
        except ValueError as error:
            yield str(error)
        else:
            config.save(settings, file.with_name("saved.yaml"))


@pytest.mark.parametrize("method", methods())
def test_every_setting_takes_any_value_or_says_why_not(method: str, tmp_path: Path) -> None:
    cls, file, said = load_method(method).Config, tmp_path / "recipe.yaml", 0
    needed = {key: "x" for key, field in cls.model_fields.items() if field.is_required()}
    for number, key in enumerate(cls.model_fields):
        for place in range(EACH * number, EACH * (number + 1)):
            value, other = WORDS[place % len(WORDS)], VALUES[place % len(VALUES)]
            file.write_text(yaml.safe_dump({**needed, key: other}), encoding="utf-8")
            for line in refusals(cls, key, value, file):
                said += 1
                assert "expected" in line or "got" in line, (key, value)
                assert len(line) < 3 * MESSAGE, (key, value[:50])
                assert one_line(line).isprintable(), (key, value[:50])
    assert said > len(cls.model_fields), "most of these are refused"
