"""Values, texts and mutations of settings and JSON that nothing expects."""

import json
from pathlib import Path
from random import Random
from typing import Any

RAW = "RAW"
"""What stands in for a piece of text in a mutated file."""


def values(canary: Path) -> list[Any]:
    """What settings never expect."""
    touch = f"touch {canary}"
    formatter = {"version": 1, "formatters": {"x": {"()": "os.system", "command": touch}}}
    deep: Any = 1
    for _ in range(50):
        deep = {"a": [deep]}
    return [
        *(None, True, -1, 0, 2**31, 2**63, -(2**63) - 1, 10**400, 1e400, float("nan"), 0.5, "", " ", "\0"),
        *("\ud800", "x" * 100_000, "\n", "../../../etc/passwd", "/dev/zero", "/", "~", "none", "nan"),
        *([], {}, [[]], [None], {"": ""}, {"a": 1}, deep, formatter, [touch]),
        *("os:system", "os.system", "subprocess:Popen", "logging.config:dictConfig", "builtins:eval"),
        *(f"__import__('os').system('{touch}')", f"$({touch})", "{x.__class__}", "tests.soak.runs:Run"),
    ]


def texts(canary: Path) -> list[str]:
    """Raw YAML: tags, aliases that multiply, deep nesting."""
    bomb = "\n  - &a0 [x,x,x,x,x,x,x,x,x]" + "".join(
        f"\n  - &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)
    )
    return [
        f"!!python/object/apply:os.system ['touch {canary}']",
        f"!!python/object/new:subprocess.Popen [['touch', '{canary}']]",
        *(
            "!!python/name:os.system",
            "!!binary x",
            "!!timestamp x",
            "!!set [a]",
            "!!int x",
            "!x y",
            "*nothing",
        ),
        *(
            "&a [*a]",
            bomb,
            "[" * 3000,
            "[" * 3000 + "]" * 3000,
            "{a: " * 900,
            "2026-13-45",
            "0x" + "f" * 9000,
        ),
        *(
            "'",
            '"',
            "\t",
            "%YAML 9",
            "---\n--- x",
            "? [a]: b",
            "<<: [1]",
            "\x07",
            "1e9999",
            ".inf",
            "1_000",
            "0o9",
        ),
    ]


def mutated(rng: Random, value: Any, menu: list[Any]) -> Any:
    """A copy of plain values with one to three places removed, replaced or moved."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = _places(value)
        if not places:
            return rng.choice(menu)
        holder, key = rng.choice(places)
        how = rng.random()
        if how < 0.15:
            del holder[key]
        elif how < 0.25 and isinstance(holder, dict):
            holder[rng.choice(("", "a.b", "-c", "x" * 300, str(key).upper(), "__class__"))] = holder[key]
        elif how < 0.35:
            holder[key] = RAW
        else:
            holder[key] = rng.choice(menu)
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [found for key in keys for found in ((value, key), *_places(value[key]))]


def damaged(rng: Random, data: bytes) -> bytes:
    """Text with bytes cut, changed or doubled."""
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.randrange(1, 40))
    return rng.choice((data[:start], data[:start] + rng.randbytes(3) + data[end:], data[:end] + data[start:]))
