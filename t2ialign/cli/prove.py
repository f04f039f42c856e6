"""t2ialign prove SUBJECT: measure its claims over some seeds, write them to proofs/, with the code's hash.

A subject is the file scripts/experiments/SUBJECT.py with `CLAIMS`. Each claim and seed is a run of its own
in the work folder, which a second call goes on with; complete ones are judged and merged into one file and
one page.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.evaluation.provenance import source_hash
from t2ialign.io import atomic, locks

if TYPE_CHECKING:
    from scripts.experiments.claim import Claim

EXPERIMENTS = Path(__file__).resolve().parents[2] / "scripts" / "experiments"
"""The subjects. A wheel does not carry them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "subject", choices=subjects() or None, help="The claims to measure: a file of scripts/experiments."
    )
    parser.add_argument(
        "--claim",
        type=int,
        action="append",
        metavar="N",
        help="Measure only this claim, counted from 1; may be repeated (all).",
    )
    parser.add_argument(
        "--seed",
        type=int,
        action="append",
        metavar="S",
        help="Measure only with this seed; may be repeated (all seeds of the claim).",
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/prove"), help="The folder of the runs (runs/prove)."
    )
    parser.add_argument(
        "--output", type=Path, default=Path("proofs"), help="The folder of the result (proofs)."
    )


def run(args: argparse.Namespace) -> None:
    """Run the claims and seeds that are not done yet, and write what is complete.

    Raises ValueError without a checkout, for a number that is no claim or seed, and for runs of older code.
    """
    if not EXPERIMENTS.is_dir():
        raise ValueError(
            f"got {args.subject}, but an installed package has no experiments; expected a checkout of the "
            "repository, which has them in scripts/experiments; clone it and run the same command there"
        )
    claims = load(args.subject)
    runs = {number: _runs(args.work, args.subject, number, claim) for number, claim in claims.items()}
    chosen = _chosen("claim", args.claim, list(claims))
    for number in chosen:
        _chosen("seed", args.seed, list(claims[number].seeds))
        _check_tree([run for run in runs[number].values() if run.started])
    for number in chosen:
        for seed in _chosen("seed", args.seed, list(claims[number].seeds)):
            runs[number][seed].finish(claims[number])
    write(args.output, args.work, args.subject)


def subjects() -> list[str]:
    """The files of scripts/experiments that define `CLAIMS`, found without importing them."""
    return [file.stem for file in sorted(EXPERIMENTS.glob("*.py")) if _defines_claims(file)]


def load(subject: str) -> dict[int, Claim]:
    """The claims of a subject by their numbers, from 1."""
    return dict(enumerate(import_module(f"scripts.experiments.{subject}").CLAIMS, 1))


class Run:
    """One claim and seed: its folder, and beside it a note of code, seconds and whether it is done."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed, self.note = folder, seed, folder.with_suffix(".json")
        self.known: dict[str, Any] = atomic.read_json(self.note) if self.note.is_file() else {}

    @property
    def started(self) -> bool:
        """Whether something was measured for it."""
        return bool(self.known)

    @property
    def done(self) -> bool:
        """Whether all of it was measured."""
        return bool(self.known.get("done"))

    def finish(self, claim: Claim) -> None:
        """Measure what is missing, noting the time whatever happens."""
        if self.done:
            return
        with locks.hold_file(self.folder, "run "):
            self._measure(claim)

    def _measure(self, claim: Claim) -> None:
        self.known = {"tree": source_hash(), "seconds": 0.0, **self.known, "done": False}
        began, before = time.monotonic(), self.known["seconds"]
        atomic.write_json(self.note, self.known)
        try:
            claim.measure(self.folder, self.seed)
            self.known["done"] = True
        finally:
            self.known["seconds"] = before + time.monotonic() - began
            atomic.write_json(self.note, self.known)


def write(output: Path, work: Path, subject: str) -> list[dict[str, Any]]:
    """Judge every claim whose seeds are done, keep earlier rows of the others, and write file and page.

    A claim that was never complete on today's code, nor judged earlier, is a row that says "not tested".
    """
    file, tree = output / f"{subject}.json", source_hash()
    earlier = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    rows: list[dict[str, Any]] = []
    figures = {}
    for number, claim in load(subject).items():
        each = list(_runs(work, subject, number, claim).values())
        if all(run.done and run.known["tree"] == tree for run in each):
            rows += judged(claim, number, subject, each, tree)
            figures[number] = claim.figures([run.folder for run in each])
        else:
            kept = [row for row in earlier if row.get("number") == number and row["verdict"] != "not tested"]
            rows += kept or [_untested(claim, number, subject, each)]
            missing = [str(run.seed) for run in each if not run.done or run.known["tree"] != tree]
            print(f"claim {number}: seeds {', '.join(missing)} are still to run before it is judged")
    output.mkdir(parents=True, exist_ok=True)
    atomic.write_json(file, rows)
    _write_page(output / f"{subject}.html", subject, rows, figures)
    for row in rows:
        print(f"{row['claim']}: {row['verdict']}")
    print(f"wrote {file} and {file.with_suffix('.html')}")
    return rows


def judged(claim: Claim, number: int, subject: str, runs: list[Run], tree: str) -> list[dict[str, Any]]:
    """The rows of a claim whose runs are done."""
    return [
        {
            "number": number,
            "claim": row.claim,
            "source": f"t2ialign prove {subject} --claim {number}",
            "paper": claim.paper,
            "measured": row.measured,
            "ci95": None if row.ci95 is None else list(row.ci95),
            "seeds": [run.seed for run in runs],
            "seconds": round(sum(run.known["seconds"] for run in runs)),
            "verdict": "holds" if row.holds else "does not hold",
            "tree": tree,
        }
        for row in claim.rows([run.folder for run in runs])
    ]


def _untested(claim: Claim, number: int, subject: str, runs: list[Run]) -> dict[str, Any]:
    return {
        "number": number,
        "claim": claim.text,
        "source": f"t2ialign prove {subject} --claim {number}",
        "paper": claim.paper,
        "measured": None,
        "ci95": None,
        "seeds": [run.seed for run in runs if run.done],
        "seconds": round(sum(run.known.get("seconds", 0) for run in runs)),
        "verdict": "not tested",
        "tree": source_hash(),
    }


def _write_page(file: Path, subject: str, rows: list[dict[str, Any]], figures: dict[int, list[Any]]) -> None:
    from scripts.experiments import page

    page.write(file, f"Proofs: {subject}", rows, figures)


def _runs(work: Path, subject: str, number: int, claim: Claim) -> dict[int, Run]:
    home = work / subject / f"claim-{number}"
    return {seed: Run(home / f"seed-{seed}", seed) for seed in claim.seeds}


def _chosen(name: str, asked: list[int] | None, there: list[int]) -> list[int]:
    """What was asked for, or all. Raises ValueError for a number that is not there."""
    if odd := [number for number in asked or [] if number not in there]:
        raise ValueError(f"got --{name} {odd[0]}; expected one of {', '.join(map(str, there))}; change it")
    return list(dict.fromkeys(asked or there))


def _check_tree(runs: list[Run]) -> None:
    """Raises ValueError for a run of older code."""
    tree = source_hash()
    for run in runs:
        if run.known["tree"] != tree:
            raise ValueError(
                f"got {run.folder}, measured on code {run.known['tree']}; expected today's, {tree}; delete "
                f"{run.folder.parent}, or set --work"
            )


def _defines_claims(file: Path) -> bool:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == "CLAIMS" for target in targets):
            return True
    return False
