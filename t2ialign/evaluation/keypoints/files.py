"""Key points of files, by prompt: T2I-Keypoints-Eval, UniGenBench, GenEval's metadata, rows of one's own."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rewards.detection.geneval_spec import parse_spec
from rewards.keypoints.taxonomy import KeyPoint, from_json, kinds, plain
from rewards.text.english import counted
from t2ialign.data.prompts import prompt_text
from t2ialign.data.rewrites import plain_points
from t2ialign.data.sources import read_rows
from t2ialign.evaluation.keypoints.recall import MAPPING
from t2ialign.io import naming
from t2ialign.io.messages import listed, quoted

Row = dict[str, Any]
RELATED = ("Relation", "Action", "Interaction")
"""Last words of kinds that other spellings leave out, as "Relationship - Comparative" does."""


@dataclass(frozen=True)
class Form:
    """A form of file: the column of prompts, the other columns it is known by, and a row's key points."""

    prompt: str
    columns: tuple[str, ...]
    points: Callable[[Row], list[KeyPoint]]


class PointFile:
    """Key points of the prompts of a file; a row is read closer when its prompt is asked for.

    So the English half of a set is of use whatever names the other half has. Raises ValueError for a file of
    no known form and for rows without a prompt.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, list[tuple[str, Form, Row]]] = {}
        rows, _ = read_rows(
            str(path),
            select=lambda where, names: _columns(_form(where, names)),
            split="train",
            streaming=True,
        )
        for where, row in rows:
            form = _form(where, list(row))
            prompt = prompt_text(where, row[form.prompt])
            self.rows.setdefault(_line(prompt), []).append((where, form, row))

    def __call__(self, prompt: str) -> list[KeyPoint]:
        """The key points of a prompt, each once, in order; blanks and line ends in it do not matter.

        Raises ValueError for a prompt that is not in the file, and, naming the row, for a malformed row and
        for a key point that is none of the 24 by any spelling.
        """
        if _line(prompt) not in self.rows:
            raise ValueError(
                f"got prompt {quoted(prompt)}, which {self.path} lacks; expected one of its "
                f"{len(self.rows)}; judge images of its prompts, or leave out {naming.name('points')}"
            )
        points: dict[KeyPoint, None] = {}
        for where, form, row in self.rows[_line(prompt)]:
            try:
                points |= dict.fromkeys(form.points(row))
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
        return list(points)


def kind_spelled(name: str) -> str:
    """The id of a kind by any spelling: its id or name, "Category - Name", or a test point of UniGenBench.

    Letter case, blanks, hyphens and underscores do not matter. Raises ValueError for anything else.
    """
    tail = name.replace(":", " - ").replace("/", " - ").split(" - ")[-1]
    for spelling in (name, tail):
        if kind := _spellings().get(plain(spelling)):
            return kind
    raise ValueError(f"got key point {quoted(name)}; expected one of {', '.join(kinds())}; correct it")


@cache
def _spellings() -> dict[str, str]:
    spellings: dict[str, str] = {}
    for kind in kinds().values():
        first, _, last = kind.name.rpartition(" ")
        for name in (kind.id, kind.name, *([first] if last in RELATED else [])):
            spellings.setdefault(plain(name), kind.id)
    for name, mapped in MAPPING.items():
        spellings.setdefault(plain(name), mapped[0])
    return spellings


def _line(prompt: str) -> str:
    return " ".join(prompt.split())


def _listed(row: Row) -> list[KeyPoint]:
    """T2I-Keypoints-Eval: names and descriptions as two lists."""
    names, descriptions = (_texts(row, column) for column in ("prompt_points", "prompt_points_des"))
    return _paired(names, descriptions)


def _test_points(row: Row) -> list[KeyPoint]:
    """UniGenBench: JSON with test points, each judged as the first kind that it is mapped to.

    Where the published file leaves a description blank, it is the prompt.
    """
    try:
        entries = json.loads(row["sub_dims_en"])
        names, descriptions = entries["Testpoints"], entries["Testpoint Description"]
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"got sub_dims_en {quoted(row['sub_dims_en'])}; expected JSON with Testpoints and Testpoint "
            "Description; correct the row"
        ) from error
    return _paired(names, [text.strip() or row["prompt_en"] for text in descriptions])


def _paired(names: Sequence[str], descriptions: Sequence[str]) -> list[KeyPoint]:
    if len(names) != len(descriptions):
        raise ValueError(
            f"got {len(names)} key points and {len(descriptions)} descriptions; expected one each; correct it"
        )
    return [KeyPoint(kind_spelled(name), text) for name, text in zip(names, descriptions, strict=True)]


def _clauses(row: Row) -> list[KeyPoint]:
    """GenEval: numbers from two on, colours and places; that a thing is there is none of the 24 kinds."""
    spec = parse_spec(row)
    bound = "cross_entity_binding" if sum(bool(c.colour) for c in spec.include) > 1 else "material"
    points = []
    for clause in spec.include:
        if clause.count > 1:
            points.append(KeyPoint("counting", f"there are exactly {counted(clause.count, clause.label)}"))
        if clause.colour:
            points.append(KeyPoint(bound, f"the {clause.label} is {clause.colour}"))
        if clause.relation:
            other = spec.include[clause.target].label
            points.append(KeyPoint("entity_layout", f"the {clause.label} is {clause.relation} the {other}"))
    return points


def _our_points(row: Row) -> list[KeyPoint]:
    """Rows of our own: key points as `train rewrite_grpo` reads them."""
    return from_json(plain_points(row["points"]))


FORMS = (
    Form("prompt", ("prompt_points", "prompt_points_des"), _listed),
    Form("prompt_en", ("sub_dims_en",), _test_points),
    Form("prompt", ("tag", "include"), _clauses),
    Form("prompt", ("points",), _our_points),
)


def _form(where: str, names: Sequence[str]) -> Form:
    for form in FORMS:
        if set(_columns(form)) <= set(names):
            return form
    known = " or ".join(", ".join(_columns(form)) for form in FORMS)
    raise ValueError(f"{where}: got columns {listed(names)}; expected {known}; rename the columns")


def _columns(form: Form) -> list[str]:
    return [form.prompt, *form.columns]


def _texts(row: Row, column: str) -> list[str]:
    """A list of texts, or one as CSV holds it: JSON, or as Python prints it."""
    value = row[column]
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            value = None
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"got {column} {quoted(row[column])}; expected a list of texts; correct the row")
    return value
