"""t2ialign prove SUBJECT: measure its claims over some seeds, write them to proofs/, with the code's hash.

A subject is the file scripts/experiments/SUBJECT.py with `CLAIMS`. Each claim and seed is a run of its own
in the work folder, which a second call goes on with; complete ones are judged and merged into one file and
one page. Beside them SUBJECT.files.json has the project's files that each claim's runs loaded: a row is stale
when one of these has changed, and without such a record when any code has.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.evaluation.provenance import (
    LoadedFiles,
    add_to_record,
    record_of,
    source_hash,
    why_stale,
)
from t2ialign.io import atomic, locks

if TYPE_CHECKING:
    from scripts.experiments.claim import Claim

EXPERIMENTS = Path(__file__).resolve().parents[2] / "scripts" / "experiments"
"""The subjects. A wheel does not carry them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "subject",
        choices=subjects() or None,
        nargs=None if EXPERIMENTS.is_dir() else "?",  # without them `run` says where they are
        help="The subject whose claims are measured: the name of a file of scripts/experiments.",
    )
    parser.add_argument(
        "--claim",
        type=int,
        action="append",
        metavar="N",
        help="Measure only the claim of this number, counted from 1. May be repeated (default: all claims).",
    )
    parser.add_argument(
        "--seed",
        type=int,
        action="append",
        metavar="S",
        help="Measure only with this seed. May be repeated (default: all seeds of the claim).",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/prove"),
        help="The folder for the runs, which a second call continues (default: runs/prove).",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("proofs"), help="The folder for the results (default: proofs)."
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="Measure nothing: list the rows on file that are stale, and the files that have changed.",
    )


def run(args: argparse.Namespace) -> int | None:
    """Run the claims and seeds that are not done yet, and write what is complete; or check what is on file.

    Returns 1 if `check` finds a stale row. Raises ValueError without a checkout, for a number that is no
    claim or seed, and for runs of older code.
    """
    if not EXPERIMENTS.is_dir():
        raise ValueError(
            f"got {args.subject or 'prove'}, but an installed package has no experiments; expected a "
            "checkout of the repository, which has them in scripts/experiments; clone it and run prove there"
        )
    if args.check:
        return check(args.output / f"{args.subject}.json")
    loaded = LoadedFiles()
    claims = load(args.subject)
    runs = {number: _runs(args.work, args.subject, number, claim) for number, claim in claims.items()}
    chosen = _chosen("claim", args.claim, list(claims))
    for number in chosen:
        _chosen("seed", args.seed, list(claims[number].seeds))
        _check_tree([run for run in runs[number].values() if run.started])
    for number in chosen:
        for seed in _chosen("seed", args.seed, list(claims[number].seeds)):
            runs[number][seed].finish(claims[number], loaded)
    write(args.output, args.work, args.subject)
    return None


def check(file: Path) -> int:
    """Print each stale row of a file in proofs/ and why -> 1 if there is one, else 0.

    Raises ValueError if there is no such file.
    """
    if not file.is_file():
        raise ValueError(f"got no {file}; expected rows that were measured; run it without --check first")
    rows = json.loads(file.read_text(encoding="utf-8"))
    reasons = [(row, why) for row in rows if (why := stale(row, recorded_files(file))) is not None]
    for row, why in reasons:
        print(f"stale: {row['claim']}: {why}")
    print(f"{file}: {len(rows) - len(reasons)} of {len(rows)} rows are of today's code")
    return 1 if reasons else 0


def stale(row: dict[str, Any], recorded: dict[str, Any]) -> str | None:
    """Why a row does not speak for today's code, or None if it does; `recorded` as of `recorded_files`."""
    if row["verdict"] == "not tested":
        return "it was not tested"
    record = recorded.get(str(row.get("number")), {})
    return why_stale(row["tree"], record["files"] if record.get("tree") == row["tree"] else None)


def recorded_files(file: Path) -> dict[str, Any]:
    """Number of a claim -> {"tree", "files"}, from beside a file of proofs/; {} where there is none."""
    beside = file.with_suffix(".files.json")
    return atomic.read_json(beside) if beside.is_file() else {}


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

    @property
    def stale(self) -> str | None:
        """Why what was measured is not of today's code; None if it is, or if nothing was measured."""
        return why_stale(self.known["tree"], self.known.get("files")) if self.started else None

    def finish(self, claim: Claim, loaded: LoadedFiles) -> None:
        """Measure what is missing, noting the time whatever happens."""
        if self.done:
            return
        with locks.hold_file(self.folder, "run "):
            self._measure(claim, loaded)

    def _measure(self, claim: Claim, loaded: LoadedFiles) -> None:
        tree = source_hash()
        self.known = {"tree": tree, "seconds": 0.0, **self.known, "done": False}
        files = self.known.pop(
            "files", {}
        )  # a run that is killed leaves none, and is then judged by its tree
        began, before = time.monotonic(), self.known["seconds"]
        atomic.write_json(self.note, self.known)
        try:
            claim.measure(self.folder, self.seed)
            self.known["done"] = True
        finally:
            self.known["seconds"] = before + time.monotonic() - began
            if source_hash() == tree:
                self.known["files"] = {**self._of_others(claim, loaded.hashes()), **files}
            atomic.write_json(self.note, self.known)

    def _of_others(self, claim: Claim, files: dict[str, str]) -> dict[str, str]:
        """These files and those that made what runs share, whose folder gets a record of them all."""
        files = {**files, **record_of(self.folder)}
        shared = claim.shared(self.folder, self.seed)
        if shared is not None and shared.is_dir():
            add_to_record(shared, files)
            files = record_of(shared)
        return files


def write(output: Path, work: Path, subject: str) -> list[dict[str, Any]]:
    """Judge every claim whose seeds are done, keep earlier rows of the others, and write file and page.

    A claim that was never complete on today's code, nor judged earlier, is a row that says "not tested".
    """
    file = output / f"{subject}.json"
    on_file = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    earlier = [row for row in on_file if row["verdict"] != "not tested"]
    rows: list[dict[str, Any]] = []
    figures = {}
    recorded = recorded_files(file)
    for number, claim in load(subject).items():
        each = list(_runs(work, subject, number, claim).values())
        if all(run.done and run.stale is None for run in each):
            rows += judged(claim, number, subject, each)
            figures[number] = claim.figures([run.folder for run in each])
            recorded[str(number)] = _record(each)
        else:
            measured = [row for row in earlier if row.get("number") == number]
            rows += measured or [_untested(claim, number, subject, each)]
            missing = [str(run.seed) for run in each if not run.done or run.stale is not None]
            print(f"claim {number}: seeds {', '.join(missing)} are still to run before it is judged")
    output.mkdir(parents=True, exist_ok=True)
    atomic.write_json(file, rows)
    atomic.write_json(file.with_suffix(".files.json"), recorded)
    _write_page(output / f"{subject}.html", subject, rows, figures)
    for row in rows:
        print(f"{row['claim']}: {row['verdict']}")
    print(f"wrote {file} and {file.with_suffix('.html')}")
    return rows


def judged(claim: Claim, number: int, subject: str, runs: list[Run]) -> list[dict[str, Any]]:
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
            "tree": runs[-1].known["tree"],
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


def _chosen(name: str, wanted: list[int] | None, there: list[int]) -> list[int]:
    """The numbers that were given, or all. Raises ValueError for a number that is not there."""
    if odd := [number for number in wanted or [] if number not in there]:
        raise ValueError(f"got --{name} {odd[0]}; expected one of {', '.join(map(str, there))}; change it")
    return list(dict.fromkeys(wanted or there))


def _check_tree(runs: list[Run]) -> None:
    """Raises ValueError for a run of older code."""
    for run in runs:
        if run.stale is not None:
            raise ValueError(f"got {run.folder}, {run.stale}; delete {run.folder.parent}, or set --work")


def _record(runs: list[Run]) -> dict[str, Any]:
    """The tree of the last run and the files of all; none where one of them has no record."""
    each = [run.known.get("files") for run in runs]
    files = {name: digest for some in each if some for name, digest in some.items()} if all(each) else {}
    return {"tree": runs[-1].known["tree"], "files": files}


def _defines_claims(file: Path) -> bool:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == "CLAIMS" for target in targets):
            return True
    return False
