"""GenEval's metadata: what each prompt asks of the objects in its image, read from JSON lines.

Ghosh et al. 2023, `evaluation_metadata.jsonl` of djghosh13/geneval (MIT) and files of the same form.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rewards.detection.colours import COLOURS

RELATIONS = ("left of", "right of", "above", "below")
TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


@dataclass(frozen=True)
class Clause:
    """`count` objects of `label`, all of `colour`, all in `relation` to those of clause number `target`."""

    label: str
    count: int
    colour: str | None = None
    relation: str | None = None
    target: int = 0


@dataclass(frozen=True)
class Spec:
    """One prompt: every `include` clause must hold, and none of `exclude` (`count` or more of `label`)."""

    prompt: str
    tag: str
    include: tuple[Clause, ...]
    exclude: tuple[Clause, ...] = ()


def read_specs(path: str | Path) -> dict[str, Spec]:
    """A JSON-lines file -> {prompt: Spec}.

    Raises ValueError, with file and line, for a line that is not such metadata, or that gives a prompt
    another meaning than an earlier line did; a repeated line is no error.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"got metadata {path}, which is no file; expected GenEval's evaluation_metadata.jsonl or one of "
            "its form; take it from github.com/djghosh13/geneval, folder prompts"
        )
    specs: dict[str, Spec] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            spec = parse_spec(json.loads(line))
        except ValueError as error:  # json.JSONDecodeError is one
            raise ValueError(f"{path}:{number}: {error}") from error
        if specs.setdefault(spec.prompt, spec) != spec:
            raise ValueError(
                f"{path}:{number}: got {spec.prompt!r} with two meanings; expected one; keep one line"
            )
    if not specs:
        raise ValueError(f"got {path} without a line; expected one JSON object a prompt; fill the file")
    return specs


def parse_spec(row: Any) -> Spec:
    """{"prompt", "tag", "include": [...], "exclude": [...]} -> Spec. Raises ValueError for anything else."""
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("prompt", "tag")):
        raise ValueError(f'got {row!r}; expected an object with "prompt", "tag" and "include"; complete it')
    include = tuple(_clause(entry, index) for index, entry in enumerate(_list(row, "include")))
    exclude = tuple(_clause(entry, 0) for entry in _list(row, "exclude"))
    if not include:
        raise ValueError(f'got no "include" for {row["prompt"]!r}; expected a clause or more; add one')
    return Spec(row["prompt"], row["tag"], include, exclude)


def lookup(specs: Mapping[str, Spec], prompt: str) -> Spec:
    """The prompt's metadata. Raises ValueError, with the nearest known prompt, when it has none."""
    if prompt not in specs:
        near = get_close_matches(prompt, specs, n=1, cutoff=0.0)
        raise ValueError(
            f"got prompt {prompt!r}, which the metadata lacks; expected one of its {len(specs)}, "
            f"such as {near[0]!r}; add a line for it"
        )
    return specs[prompt]


def check_labels(specs: Mapping[str, Spec], labels: Collection[str]) -> None:
    """Raises ValueError for a prompt about objects beyond a detector with these labels; () passes all."""
    for spec in specs.values():
        unknown = {clause.label for clause in spec.include + spec.exclude}.difference(labels)
        if labels and unknown:
            raise ValueError(
                f"got {spec.prompt!r}, about {', '.join(sorted(unknown))}; expected labels of the detector: "
                f"{', '.join(sorted(labels))}; rename it, or use another detector"
            )


def _list(row: dict[str, Any], key: str) -> list[Any]:
    value = row.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f'got "{key}" {value!r}; expected a list of clauses; put it in brackets')
    return value


def _clause(entry: Any, index: int) -> Clause:
    """One clause; `index` is how many precede it, of which a position may name one."""
    if not isinstance(entry, dict) or not isinstance(entry.get("class"), str):
        raise ValueError(f'got clause {entry!r}; expected {{"class": name, "count": n}}; name the class')
    count, colour, position = entry.get("count"), entry.get("color"), entry.get("position")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(
            f"got count {count!r} of {entry['class']}; expected a whole number from 1; correct it"
        )
    if colour is not None and colour not in COLOURS:
        raise ValueError(f"got color {colour!r}; expected one of {', '.join(COLOURS)}; use one of these")
    if position is None:
        return Clause(entry["class"], count, colour)
    relation, target = position if isinstance(position, list) and len(position) == 2 else (None, None)
    if relation not in RELATIONS or not isinstance(target, int) or not 0 <= target < index:
        raise ValueError(
            f"got position {position!r}; expected [one of {', '.join(RELATIONS)}, number of an earlier "
            "clause]; name a clause that precedes it"
        )
    return Clause(entry["class"], count, colour, relation, target)
