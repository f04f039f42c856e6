"""t2ialign monitor RUN [RUN ...]: what the monitors of runs saw, as a page and as numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from t2ialign.io import atomic
from t2ialign.io.messages import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="The output folder of a training run that had the setting monitor_prompts.",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("monitor.html"),
        metavar="FILE",
        help="The HTML page to write. Its numbers are written beside it as .json (default: monitor.html).",
    )


def run(args: argparse.Namespace) -> None:
    """Write the page and its numbers, and say of each run in one line whether it over-optimised."""
    if args.output.suffix != ".html":
        raise ValueError(f"got -o {args.output}; expected a name that ends in .html; add it")
    if len(set(args.runs)) < len(args.runs):
        raise ValueError("got a run twice; expected each once; drop one")

    from t2ialign.evaluation import monitor_journal
    from t2ialign.evaluation.cross_reward import matrix
    from t2ialign.web import monitor_page

    runs = {str(path): monitor_journal.read(path) for path in args.runs}
    changes = matrix(runs)
    page, verdicts = monitor_page.render(runs, changes), {}
    for name, journal in runs.items():
        fired, sentence = monitor_page.verdict(journal)
        print(printable(f"{name}: {sentence}"))
        verdicts[name] = {
            **{key: journal.about[key] for key in ("method", "model", "trained")},
            "steps": journal.steps,
            "fired": fired.to_json() if fired else None,
            "change": {tested: change.to_json() for tested, change in changes[name].items()},
        }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(args.output, page)
    atomic.write_json(args.output.with_suffix(".json"), verdicts)
    print(f"wrote {args.output}")
