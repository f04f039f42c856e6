"""Prompts through a rewriter: into a file with a journal and a report, to a listener, or into memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from t2ialign.io import atomic, locks, naming
from t2ialign.models.sources import check_model
from t2ialign.rewriting import files, rewriter
from t2ialign.rewriting.job import Job
from t2ialign.rewriting.page import check_page, write
from t2ialign.rewriting.rewriter import Rewriter, Rewritten

REPORT = ".json"
"""The report's ending, in place of the output's."""


class Listener(Protocol):
    """Follows a run prompt by prompt: each attempt as it is written, then what became of the prompt."""

    def prompt(self, prompt: str) -> None:
        """A prompt begins."""

    def attempt(self, number: int) -> None:
        """An attempt, counted from 0, begins."""

    def piece(self, text: str) -> None:
        """The language model has written some more."""

    def end(self, output: str) -> None:
        """The attempt is over, and this is all it wrote."""

    def result(self, result: Rewritten) -> None:
        """The prompt is done."""


def run(
    job: Job,
    prompts: Sequence[str],
    output: Path | None,
    *,
    resume: bool = False,
    html: Path | None = None,
    listener: Listener | None = None,
    sources: Sequence[Path] = (),
) -> list[Rewritten]:
    """Rewrite the prompts, in order; without an output they may be followed by a listener.

    sources: files that the prompts are from, which no output may replace. Raises ValueError for bad
    settings, an output in use, and as the rewriter does.
    """
    _check(job, output, html, resume=resume)
    if output is not None:
        with locks.hold_file(output, naming.prefix("output")):
            _check_output(output, sources, resume=resume)
            results = _to_file(job, prompts, output)
    elif listener is not None:
        results = _followed(job, prompts, listener)
    else:
        with TemporaryDirectory(prefix="t2ialign-") as folder:
            results = _rows(job, prompts, Path(folder) / "rewrites.jsonl")
    if html is not None:
        write(html, results, rewriter=job.name)
    return results


def report_of(output: Path) -> Path:
    """The report beside an output."""
    return output.with_suffix(REPORT)


def _check(job: Job, output: Path | None, html: Path | None, *, resume: bool) -> None:
    for name, value, least in (
        ("seed", job.choice.seed, 0),
        ("tries", job.tries, 1),
        ("longest", job.longest, 0),
    ):
        if value < least:
            raise ValueError(f"got {naming.given(name, value)}; expected at least {least}; raise it")
    if html is not None:
        check_page(html)
    if job.fit is not None:
        check_model(job.fit, naming.name("fit"))
    if output is not None:
        files.check_ending(output)
    elif resume:
        output_name = naming.name("output")
        raise ValueError(
            f"got {naming.name('resume')} without {output_name}; expected the output of that run; name it"
        )


def _check_output(output: Path, sources: Sequence[Path], *, resume: bool) -> None:
    """Raises ValueError for an output that is the input, or of an earlier run that is not to go on."""
    journal, written = files.journal_of(output), (output, report_of(output))
    for source in sources:
        if source.resolve() in {file.resolve() for file in (journal, *written)}:
            raise ValueError(f"got {naming.given('output', output)} in the place of {source}; choose another")
    there = [file for file in (*written, journal) if file.exists()]
    if there and not resume:
        raise ValueError(
            f"got {there[0]} from an earlier run; expected none; go on with it by {naming.resuming()}, or "
            f"choose another {naming.name('output')}"
        )
    if there and not journal.exists():
        raise ValueError(f"got {there[0]} without {journal.name}; expected both, to go on; choose another")


def _rows(job: Job, prompts: Sequence[str], journal: Path) -> list[Rewritten]:
    (rows,) = job.rows(prompts, [journal])
    return [files.from_row(row) for row in rows]


def _to_file(job: Job, prompts: Sequence[str], output: Path) -> list[Rewritten]:
    (rows,) = job.rows(prompts, [files.journal_of(output)])
    files.write(output, rows)
    results = [files.from_row(row) for row in rows]
    head = {"rewriter": job.name, "seed": job.choice.seed}
    atomic.write_json(report_of(output), {**head, **rewriter.report(results)})
    return results


def _followed(job: Job, prompts: Sequence[str], listener: Listener) -> list[Rewritten]:
    """One prompt after the other, each followed by the listener."""
    told, settings, results = _Told(job, listener), job.settings(), []
    for prompt in prompts:
        listener.prompt(prompt)
        (result,) = rewriter.rewrite(told, [prompt], **settings)
        listener.result(result)
        results.append(result)
    return results


class _Told:
    """A rewriter that tells a listener what it is asked and what it writes."""

    def __init__(self, job: Job, listener: Listener) -> None:
        self.listener = listener
        self.rewriter: Rewriter = job.choice.load(lambda row, piece: listener.piece(piece))

    def write(self, prompts: Sequence[str], *, attempt: int) -> list[str]:
        """The interface of `Rewriter`."""
        self.listener.attempt(attempt)
        outputs = self.rewriter.write(prompts, attempt=attempt)
        self.listener.end("\n".join(outputs))
        return outputs
