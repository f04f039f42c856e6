"""How many of the key points that others wrote down the rules find, and how many of theirs are right.

GenEval's metadata, T2I-CompBench prompts that were read by hand, and the test points of UniGenBench.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.detection.geneval_spec import RELATIONS, Clause, Spec, read_specs
from rewards.keypoints.taxonomy import KeyPoint, kinds
from rewards.text.contrast_words import ENGLISH
from rewards.text.english import counted, singular

Extract = Callable[[str], Sequence[KeyPoint]]

_COLOURED = re.compile(rf"the (.+) (?:is|are) ({'|'.join(ENGLISH.colours)})")
_PLACED = re.compile(rf"the (.+) (?:is|are) (?:on the |to the )?({'|'.join(RELATIONS)}) the (.+)")

MAPPING: dict[str, tuple[str, ...]] = {
    "Style": ("artistic_style",),
    "World Knowledge": ("knowledge_application",),
    # Doubtful: the 24 have no kind for consequences; most of these test points are against what is usual.
    "Logical Reasoning": ("counterfactual", "knowledge_application"),
    # Doubtful: an imagined thing is mostly an impossible one, not always.
    "Compound - Imagination": ("counterfactual",),
    "Compound - Feature Matching": ("cross_entity_binding",),
    "Text Generation": ("text_rendering",),
    # Doubtful: there it is also how the image is divided, or what somebody carries.
    "Relationship - Composition": ("compositional_relation",),
    "Grammar - Pronoun Reference": ("pronoun_resolution",),
    "Entity Layout - Two-Dimensional Space": ("entity_layout",),
    "Entity Layout - Three-Dimensional Space": ("entity_layout",),
    "Grammar - Negation": ("negation",),
    # Doubtful: there it is also that a pronoun or a participle belongs to its subject.
    "Grammar - Consistency": ("attribute_consistency",),
    "Attribute - Material": ("material",),
    "Action - State": ("state",),
    "Action - Non-contact Interaction": ("non_contact_interaction",),
    "Action - Full-body (Character/Anthropomorphic)": ("full_body_action",),
    "Relationship - Inclusion": ("containment_relation",),
    "Relationship - Similarity": ("similarity_relation",),
    "Action - Contact Interaction": ("contact_interaction",),
    # Doubtful: the 24 have no shape; the rules bind it, or take a sole one for a likeness.
    "Attribute - Shape": ("similarity_relation", "cross_entity_binding"),
    "Action - Hand (Character/Anthropomorphic)": ("hand_action",),
    "Attribute - Expression": ("expression",),
    "Attribute - Quantity": ("counting",),
    "Attribute - Size": ("size",),
    "Action - Animal": ("animal_action",),
    "Relationship - Comparison": ("comparative_relation",),
    # Doubtful: the 24 have no colour; the rules bind it, or take a sole one for the look of a surface.
    "Attribute - Color": ("material", "cross_entity_binding"),
}
"""Test point of UniGenBench -> the kinds of which one answers it; the first is what it is judged as."""


@dataclass(frozen=True)
class Found:
    """Counts: how many were expected, how many given, and how many of the given were expected."""

    expected: int = 0
    given: int = 0
    right: int = 0

    def __add__(self, other: Found) -> Found:
        return Found(self.expected + other.expected, self.given + other.given, self.right + other.right)

    @property
    def recall(self) -> float:
        """Share of the expected that were given, in [0, 1]; 1 where nothing was expected."""
        return self.right / self.expected if self.expected else 1.0

    @property
    def precision(self) -> float:
        """Share of the given that were expected, in [0, 1]; 1 where nothing was given."""
        return self.right / self.given if self.given else 1.0


def compared(expected: Iterable[object], given: Iterable[object]) -> Found:
    """Compare two lists as bags: an item in both is right as often as in the shorter."""
    wanted, got = Counter(expected), Counter(given)
    return Found(wanted.total(), got.total(), (wanted & got).total())


def geneval(specs: Iterable[Spec], extract: Extract) -> dict[str, Found]:
    """GenEval's metadata -> what was found of its counting (from two on), colour and position."""
    totals = {"counting": Found(), "colour": Found(), "position": Found()}
    for spec in specs:
        wanted, given = _expected(spec), _given(extract(spec.prompt))
        for name in totals:
            totals[name] += compared(wanted[name], given[name])
    return totals


def _expected(spec: Spec) -> dict[str, list[object]]:
    clauses: tuple[Clause, ...] = spec.include
    return {
        "counting": [counted(c.count, c.label) for c in clauses if c.count > 1],
        "colour": [(singular(c.label), c.colour) for c in clauses if c.colour],
        "position": [(c.label, c.relation, clauses[c.target].label) for c in clauses if c.relation],
    }


def _given(points: Sequence[KeyPoint]) -> dict[str, list[object]]:
    descriptions = {kind: [p.description for p in points if p.kind == kind] for kind in kinds()}
    coloured = [
        _COLOURED.fullmatch(text)
        for text in dict.fromkeys(descriptions["material"] + descriptions["cross_entity_binding"])
    ]
    placed = [(text, _PLACED.fullmatch(text)) for text in descriptions["entity_layout"]]
    return {
        "counting": [text.removeprefix("there are exactly ") for text in descriptions["counting"]],
        "colour": [(singular(match[1]), match[2]) for match in coloured if match],
        "position": [match.groups() if match else text for text, match in placed],
    }


def sample(folder: Path, number: int, seed: int) -> list[tuple[str, int]]:
    """(file, line from 1) of prompts of the eight `*_val.txt`, evenly over the files and the same every time.

    Raises ValueError for a folder without such files.
    """
    files = sorted(folder.glob("*_val.txt"))
    if not files:
        raise ValueError(f"got {folder}, without *_val.txt; expected T2I-CompBench's examples/dataset")
    draw = random.Random(seed)
    lines_of_files: list[tuple[str, int]] = []
    for index, file in enumerate(files):
        lines = [n for n, line in enumerate(_lines(file), start=1) if line.strip()]
        share = number // len(files) + (index < number % len(files))
        lines_of_files += [(file.name, n) for n in sorted(draw.sample(lines, share))]
    return lines_of_files


def checked(file: Path, folder: Path, extract: Extract) -> dict[str, Found]:
    """Prompts read by hand, and where they lie -> kind -> how many prompts have it and were given it.

    A kind counts once a prompt. Raises ValueError for a prompt that is not in the folder.
    """
    totals = dict.fromkeys(kinds(), Found())
    for wanted, given in _both(file, folder, extract):
        for kind in totals:
            totals[kind] += Found(kind in wanted, kind in given, kind in wanted & given)
    return totals


def alike(file: Path, folder: Path, extract: Extract) -> list[bool]:
    """The same files -> for each prompt, whether it was given the very kinds that the reader found."""
    return [wanted == given for wanted, given in _both(file, folder, extract)]


def _both(file: Path, folder: Path, extract: Extract) -> Iterator[tuple[set[str], set[str]]]:
    """(kinds that the reader found, kinds given) of each prompt."""
    for row in json.loads(file.read_text(encoding="utf-8"))["prompts"]:
        lines = _lines(folder / row["file"])
        if not 0 < row["line"] <= len(lines):
            raise ValueError(
                f"got line {row['line']} of {row['file']}; expected up to {len(lines)}; correct it"
            )
        points = extract(lines[row["line"] - 1])
        yield {kind for kind, _ in row["points"]}, {point.kind for point in points}


def total(parts: Iterable[Found]) -> Found:
    """The sum of several."""
    return sum(parts, Found())


def test_points(file: Path, parity: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """UniGenBench's CSV -> (prompt, [(test point, its words)]) of the rows of even (0) or odd (1) index.

    Raises ValueError for a file without its columns.
    """
    with file.open(encoding="utf-8-sig", newline="") as stream:
        for row in csv.DictReader(stream):
            if not {"index", "prompt_en", "sub_dims_en"} <= set(row):
                raise ValueError(
                    f"got {file} with columns {list(row)}; expected UniGenBench's test_prompts_en.csv"
                )
            if int(row["index"]) % 2 == parity:
                entries: dict[str, Any] = json.loads(row["sub_dims_en"])
                points = zip(entries["Testpoints"], entries["Testpoint Description"], strict=True)
                yield row["prompt_en"], list(points)


def unigenbench(rows: Iterable[tuple[str, list[tuple[str, str]]]], extract: Extract) -> dict[str, Found]:
    """(prompt, test points) -> test point -> how many of them a key point of a mapped kind answers.

    Only recall means something: the benchmark does not list all that its prompts ask.
    """
    totals = dict.fromkeys(MAPPING, Found())
    for prompt, points in rows:
        given = {point.kind for point in extract(prompt)}
        for name, _ in points:
            if name not in MAPPING:
                raise ValueError(f"got test point {name!r}; expected one of {', '.join(MAPPING)}; map it")
            totals[name] += Found(1, 0, bool(given.intersection(MAPPING[name])))
    return totals


def figures(data: Path, hand_checked: Path, extract: Extract) -> dict[str, dict[str, Found]]:
    """All three on the published files under `data`; of UniGenBench the rows of odd index.

    The even rows are those that the rules were written on.
    """
    published = data / "t2i-compbench/examples/dataset"
    return {
        "GenEval": geneval(read_specs(data / "geneval/prompts/evaluation_metadata.jsonl").values(), extract),
        "T2I-CompBench": checked(hand_checked, published, extract),
        "UniGenBench": unigenbench(test_points(data / "unigenbench/data/test_prompts_en.csv", 1), extract),
    }


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()
