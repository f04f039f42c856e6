"""How often published rewrites of short prompts lose what the survival check looks for, or seem to.

The checks were made with the pairs of even index in view. Then 30 of the flagged pairs of odd index were
drawn and read, and the other odd ones with a lost number or negation too. After that the check of negations
was made more tolerant: what it still flags is a second figure, of pairs that were in view.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.experiments.claim import MeasuredOnce, Row
from scripts.experiments.estimates import as_json
from scripts.experiments.keypoint_rules import published
from t2ialign.data.files.tables import read_table
from t2ialign.evaluation.statistics import Estimate, wilson
from t2ialign.rewriting.survival import Lost, check

FILE = "survival.json"
READ = Path(__file__).parent / "survival_read.json"
"""The pairs that were read by hand, with a verdict on each loss."""
VERDICTS = ("true", "false alarm")
SEED, DRAWN = 0, 30
PAIRS = {"geneval": 553, "unigenbench": 600}
FIRST, ALL, TODAY = (
    "false alarms of the first check, 30 drawn",
    "false alarms of the first check, all that was read",
    "false alarms of today's check, all that was read",
)
NO_LONGER, WERE_READ = "true losses no longer reported", "drawn pairs that were read"

Check = Callable[[str, str], Sequence[Lost]]
"""(prompt, rewrite) -> what was lost."""


class SurvivalClaim(MeasuredOnce):
    """A row for the run over all pairs, one for the false alarms. Nothing is drawn anew: seeds must agree."""

    text = (
        "survival checks run over the 553 + 600 published short and long prompts; 30 flagged pairs were read "
        "by hand, and the rate of false alarms is stated"
    )
    run_text = "the survival check runs over the 553 + 600 published short and long prompts"
    alarms_text = (
        "30 flagged pairs were read by hand: the share of false alarms of the check in its first form, "
        "and of today's on the readings it still reports, with every true loss still reported"
    )
    result = FILE

    def measurement(self, folder: Path, seed: int) -> dict[str, Any]:
        """Check every pair. Raises ValueError if the published files are absent."""
        data = published("geneval", "bagel-geneval-long", "unigenbench")
        record = json.loads(READ.read_text(encoding="utf-8"))
        drawn_and_read = {reading.pair for reading in read_verdicts() if reading.drawn}
        return {**figures(data, check), WERE_READ: len(drawn_and_read & set(drawn(record["flagged"])))}

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """The run holds if it saw every pair, the rates if all 30 drawn pairs are on record."""
        results = self.results(folders)
        first, agree = results[0], all(result == results[0] for result in results)
        parts = first["flagged"].items()
        seen = {name: sum(part["pairs"] for key, part in parts if key.startswith(name)) for name in PAIRS}
        run = {"pairs": seen, "flagged": first["flagged"]}
        alarms = {name: first[name] for name in (FIRST, ALL, TODAY, NO_LONGER, WERE_READ)}
        complete = first[WERE_READ] == DRAWN and first[NO_LONGER] == 0
        low, high = first[FIRST]["all"]["ci95"]
        return [
            Row(self.run_text, run, None, agree and seen == PAIRS),
            Row(self.alarms_text, alarms, (low, high), agree and complete),
        ]


@dataclass(frozen=True)
class Pair:
    """A prompt and a published rewrite; `id` is the set and the index, "geneval/12"."""

    id: str
    prompt: str
    rewrite: str

    @property
    def odd(self) -> bool:
        """Whether the checks were made without a look at it."""
        return int(self.id.rpartition("/")[2]) % 2 == 1


@dataclass(frozen=True)
class Reading:
    """A reader's verdict on one loss that the first check reported for a pair of odd index."""

    pair: str
    what: str
    words: str
    """The words of the prompt; "" for a quotation, which is not copied here."""
    verdict: str
    """"true" if the rewrite does not say it, "false alarm" if it says the same in other words."""
    why: str
    drawn: bool
    """Whether the pair is one of the 30."""


def published_pairs(data: Path) -> list[Pair]:
    """The 553 pairs of GenEval, by order, and the 600 of UniGenBench, by index.

    Raises ValueError if a file is missing or the two sides do not match.
    """
    long = data / "bagel-geneval-long/eval/gen/geneval/prompts/evaluation_metadata_long.jsonl"
    short_rows, long_rows = _rows(data / "geneval/prompts/evaluation_metadata.jsonl"), _rows(long)
    if [row["include"] for row in short_rows] != [row["include"] for row in long_rows]:
        raise ValueError(f"got other things in {long} than in the short prompts; expected the same; fetch it")
    pairs = [
        Pair(f"geneval/{place}", short["prompt"], row["prompt"])
        for place, (short, row) in enumerate(zip(short_rows, long_rows, strict=True))
    ]
    folder = data / "unigenbench/data"
    prompts, rewrites = (
        {row["index"]: row["prompt_en"] for row in _rows(folder / f"{name}.csv")}
        for name in ("test_prompts_en", "test_prompts_en_long")
    )
    if missing := sorted(prompts.keys() - rewrites):
        raise ValueError(f"got no long prompt {missing[0]} in {folder}; expected one for each; fetch it")
    return pairs + [Pair(f"unigenbench/{index}", prompts[index], rewrites[index]) for index in prompts]


def flagged(pairs: Sequence[Pair], check: Check) -> dict[str, list[Lost]]:
    """Id -> what was lost, for the pairs that lost something."""
    losses = {pair.id: list(check(pair.prompt, pair.rewrite)) for pair in pairs}
    return {name: lost for name, lost in losses.items() if lost}


def drawn(flagged_pairs: Sequence[str]) -> list[str]:
    """`DRAWN` of these ids, or all if there are fewer, in a fixed random order."""
    return random.Random(SEED).sample(list(flagged_pairs), min(DRAWN, len(flagged_pairs)))


def read_verdicts(file: Path = READ) -> list[Reading]:
    """The verdicts on record. Raises ValueError for a verdict that is none of `VERDICTS`."""
    readings = [Reading(**row) for row in json.loads(file.read_text(encoding="utf-8"))["read"]]
    for reading in readings:
        if reading.verdict not in VERDICTS:
            raise ValueError(
                f"got verdict {reading.verdict!r} on {reading.pair}; expected {' or '.join(VERDICTS)}; mend"
            )
    return readings


def still_reported(readings: Sequence[Reading], losses: Mapping[str, Sequence[Lost]]) -> list[Reading]:
    """The readings of losses that a check reports today, by pair, kind and words."""

    def is_reported(one: Reading) -> bool:
        lost = losses.get(one.pair, [])
        return any(loss.what == one.what and one.words in loss.evidence for loss in lost)

    return list(filter(is_reported, readings))


def false_alarms(readings: Sequence[Reading]) -> dict[str, Estimate]:
    """ "all" and each kind of loss -> the share of false alarms in [0, 1], with Wilson's interval by pair.

    Raises ValueError for no readings.
    """
    if not readings:
        raise ValueError("got no readings; expected at least one; read some losses first")
    kinds = {"all": list(readings)}
    for reading in readings:
        kinds.setdefault(reading.what, []).append(reading)
    rates = {}
    for kind, some in kinds.items():
        wrong = sum(one.verdict == "false alarm" for one in some)
        rates[kind] = wilson(wrong, len(some), prompts=len({one.pair for one in some}))
    return rates


def shuffled(pairs: Sequence[Pair], check: Check) -> float:
    """Share in [0, 1] of prompts with something to lose that are flagged beside the next pair's rewrite.

    Such a rewrite has lost everything, so 1 is right; less shows how much chance agreement lets pass.
    """
    with_losses = [pair for pair in pairs if check(pair.prompt, "")]
    others = with_losses[1:] + with_losses[:1]
    wrong = [bool(check(a.prompt, b.rewrite)) for a, b in zip(with_losses, others, strict=True)]
    return sum(wrong) / len(wrong) if wrong else float("nan")


def figures(data: Path, check: Check) -> dict[str, Any]:
    """Everything on record for a check: flagged pairs by set, half and kind, and the false alarms."""
    pairs = published_pairs(data)
    table: dict[str, Any] = {}
    for name in PAIRS:
        for half, odd in (("even", False), ("odd", True)):
            some = [pair for pair in pairs if pair.id.startswith(name) and pair.odd is odd]
            lost = flagged(some, check)
            kinds = Counter(what for losses in lost.values() for what in {loss.what for loss in losses})
            table[f"{name} {half}"] = {
                "pairs": len(some),
                "with something to lose": sum(bool(check(pair.prompt, "")) for pair in some),
                "flagged": len(lost),
                **kinds,
                "flagged when shuffled": round(shuffled(some, check), 3),
            }
    readings = read_verdicts()
    today = still_reported(readings, flagged([pair for pair in pairs if pair.odd], check))
    parts = {FIRST: [r for r in readings if r.drawn], ALL: readings, TODAY: today}
    first, now = (sum(r.verdict == "true" for r in some) for some in (readings, today))
    rates = {name: false_alarms(some) for name, some in parts.items()}
    return {"flagged": table, **as_json(rates), NO_LONGER: first - now}


def _rows(file: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_table(file)]
