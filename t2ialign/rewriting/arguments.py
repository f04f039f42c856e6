"""The arguments that name a rewriter on the command line, the same for every verb that has one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from t2ialign.io import naming
from t2ialign.rewriting.instructions import PRESETS
from t2ialign.rewriting.intensity import INTENSITIES

if TYPE_CHECKING:
    from t2ialign.rewriting.load import Choice

FLAGS = ("url", "preset", "intensity", "temperature", "seed")
"""What is no option, since it has a flag."""


def add_rewriter(parser: Any) -> None:
    """How the rewriter is asked, to a parser or a group; how it is named is for each verb to say."""
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="How the prompt is put to the language model and how its answer is read (default: general, for "
        "any instruction model).",
    )
    parser.add_argument(
        "--url",
        help="The address of an OpenAI-compatible server that serves the language model, such as "
        "http://localhost:8000/v1. Without it the model runs on this machine.",
    )
    parser.add_argument(
        "--intensity",
        choices=tuple(INTENSITIES),
        help="How many words a rewrite may add: light is 15, medium 40 and full 120 (default: medium).",
    )


def parse_options(texts: Iterable[str], flag: str) -> dict[str, Any]:
    """ "tokens=512" -> {"tokens": 512}; values are read as YAML. Raises ValueError for another form."""
    from t2ialign.io import plain_yaml

    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key.isidentifier() or not equals:
            raise ValueError(f"got {flag} {text!r}; expected KEY=VALUE; write it so")
        try:
            options[key] = plain_yaml.read(value)
        except ValueError as error:
            raise ValueError(
                f"got {flag} {text!r}, whose value is not YAML; expected KEY=VALUE; quote it"
            ) from error
    return options


def chosen(
    name: str,
    *,
    url: str | None = None,
    preset: str | None = None,
    intensity: str | None = None,
    temperature: float | None = None,
    seed: int = 0,
    options: Mapping[str, Any],
) -> Choice:
    """The rewriter of that name. Raises ValueError as `load.choose` does, and for an option with a flag."""
    from t2ialign.rewriting.load import choose

    if flags := [key for key in FLAGS if key in options]:
        raise ValueError(f"got {flags[0]} as an option; expected {naming.name(flags[0])}; write it so")
    if temperature is not None and not 0 <= temperature < math.inf:
        raise ValueError(
            f"got {naming.given('temperature', temperature)}; expected a number from 0; change it"
        )
    given: dict[str, Any] = {"url": url, "preset": preset, "temperature": temperature, "seed": seed}
    return choose(name, strength=intensity, **given, **options)
