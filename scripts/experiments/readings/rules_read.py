"""Rewrites by rules that were read by hand: which prompts, the verdicts, and which of them are out of date.

100 prompts were drawn from the held-out half of 14 published sets; the rules were made with the other half in
view. Texts are not kept: a prompt is named by set and row, and with its rewrite by a hash.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.experiments.estimates import as_json
from t2ialign.evaluation.statistics import Estimate, wilson

READ = Path(__file__).parent / "rules_read.json"
"""The verdicts, and of each published set the files and where in them the prompts are."""
VERDICTS = ("useful", "neutral", "harmful")
"""Verdicts against the prompt as it is: better for Stable Diffusion, no matter, or against what it says."""
FIRST, LAST = 100, 200
"""The part of the draw that is counted; earlier prompts were read while the rules were made."""

_DIALECTS = {".tsv": "excel-tab", ".csv": "excel"}
Rewrite = Callable[[str], str]


@dataclass(frozen=True)
class Reading:
    """A verdict on the rewrite of one prompt; `old` is that on the rules of before."""

    id: str
    """Set and row, from 0: "geneval/12"."""
    prompt: str
    """The hash of the prompt."""
    rewrite: str
    """The hash of the rewrite that was read."""
    verdict: str
    why: str
    old: str


def prompts(data: Path) -> dict[str, str]:
    """Id -> prompt, for every prompt of the 14 sets. Raises an OSError or ValueError for an absent file."""
    every: dict[str, str] = {}
    for name, files in json.loads(READ.read_text(encoding="utf-8"))["sets"].items():
        texts = [text for file, key in files for text in _texts(data / file, key)]
        every |= {f"{name}/{row}": text for row, text in enumerate(texts) if text.strip()}
    return every


def _texts(file: Path, key: str | None) -> list[str]:
    """The lines of a .txt file, a column of a table, or the texts under a key of JSON rows, or these rows.

    Blanks around a text are kept, which `read_table` drops: the draw depends on every character.
    """
    if file.suffix == ".txt":
        return file.read_text(encoding="utf-8").splitlines()
    if file.suffix in _DIALECTS:
        with file.open(encoding="utf-8", newline="") as lines:
            return [row[key] for row in csv.DictReader(lines, dialect=_DIALECTS[file.suffix])]
    rows = json.loads(file.read_text(encoding="utf-8"))
    every = rows.values() if isinstance(rows, dict) and key else rows
    return [str(row[key]) if key else row for row in every]


def fingerprint(text: str) -> str:
    """16 letters that tell a text from others."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def held_out(prompt: str) -> bool:
    """Whether the rules were made without a look at this prompt."""
    return hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] % 2 == 1


def draw(texts: Mapping[str, str], *, number: int, seed: int = 0) -> list[str]:
    """The first `number` ids of a fixed order of held-out prompts, which takes one of each set in turn."""
    rng = random.Random(seed)
    sets: dict[str, list[str]] = {}
    for name, text in texts.items():
        if held_out(text):
            sets.setdefault(name.partition("/")[0], []).append(name)
    queues = [rng.sample(names, len(names)) for _, names in sorted(sets.items())]
    drawn: list[str] = []
    while len(drawn) < number and any(queues):
        drawn += [queue.pop() for queue in queues if queue][: number - len(drawn)]
    return drawn


def readings(file: Path = READ) -> list[Reading]:
    """The verdicts on record. Raises ValueError for one that is none of `VERDICTS`."""
    record = [Reading(**row) for row in json.loads(file.read_text(encoding="utf-8"))["read"]]
    for reading in record:
        if not {reading.verdict, reading.old} <= set(VERDICTS):
            raise ValueError(
                f"got verdict {reading.verdict!r}, {reading.old!r} on {reading.id}; expected of each one of "
                f"{', '.join(VERDICTS)}; correct the file"
            )
    return record


def stale(record: Sequence[Reading], texts: Mapping[str, str], rewrite: Rewrite) -> list[str]:
    """The ids of readings whose prompt or rewrite is another today."""

    def is_fresh(one: Reading) -> bool:
        text = texts.get(one.id)
        hashes = text is not None and (fingerprint(text), fingerprint(rewrite(text)))
        return hashes == (one.prompt, one.rewrite)

    return [one.id for one in record if not is_fresh(one)]


def shares(verdicts: Sequence[str]) -> dict[str, Estimate]:
    """Each verdict -> its share in [0, 1], with Wilson's interval of 95 %."""
    counts = Counter(verdicts)
    return {verdict: wilson(counts[verdict], len(verdicts)) for verdict in VERDICTS}


def report(data: Path) -> dict[str, Any]:
    """The shares of the new rules and of the old ones on the readings, and what is out of date."""
    from t2ialign.rewriting.rules import explain

    record, texts = readings(), prompts(data)
    return {
        "rules": as_json(shares([one.verdict for one in record])),
        "rules before": as_json(shares([one.old for one in record])),
        "unchanged": sum(one.prompt == one.rewrite for one in record),
        "stale": stale(record, texts, lambda prompt: explain(prompt)[1]),
    }


if __name__ == "__main__":
    import os

    print(json.dumps(report(Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))), indent=2))
