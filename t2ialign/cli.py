"""The command line: finds the verb's file, and turns a user's error into one line and exit code 2."""

from __future__ import annotations

import argparse
import difflib
import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import NoReturn

from t2ialign import __version__
from t2ialign.data.messages import OneLine, one_line
from t2ialign.paths import expand_word

# A verb is the file t2ialign/VERB.py with add_arguments(parser) and run(args) -> exit code or None. Only the
# chosen one is imported, so that the help stays instant whatever a verb needs.
VERBS = {
    "train": "align a model: t2ialign train dpo -c recipe.yaml lr=1e-5",
    "recipes": "the settings that ship, for train -c NAME: what each is for and what it needs",
    "sample": "render images from prompts, with any number of LoRAs",
    "mix": "two LoRAs into one, alpha * A + (1 - alpha) * B, exactly",
    "export": "a LoRA for ComfyUI, A1111 and diffusers, or merged into its base model",
    "score": "any number of rewards over any number of pictures, into one table",
    "evaluate": "score a folder of samples with a reward, with confidence intervals",
    "rewrite": "prompts said better before generation, checked against what the user asked for",
    "keypoints": "judge pictures key point by key point: accuracy of each kind, with confidence intervals",
    "filter": "preference pairs that three rewards do not contradict, and a report of what was dropped",
    "monitor": "curves of held-out rewards of one or several runs, and where one over-optimises",
    "demo": "the main job on the embedded model, from prompts to report.html",
    "prove": "measure a claim over several seeds and write it to proofs/",
}


class Parser(argparse.ArgumentParser):
    """argparse that knows ~ wherever a path begins, as in --output=~/x, which no shell expands.

    Its errors are raised, so that they take the same way out as every other user error.
    """

    def parse_known_args(  # type: ignore[override]  # of all its overloads the one that is used
        self, args: Sequence[str], namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """What argparse makes of the words, with every path in full."""
        return super().parse_known_args([expand_word(word) for word in args], namespace)

    def error(self, message: str) -> NoReturn:
        """Raises ValueError instead of printing the usage and leaving."""
        raise ValueError(f"{message}; see {self.prog} --help")


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code: 0, a verb's own, 2 for a user's error, 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    try:
        with _one_line_messages():
            return _run([item for item in argv if item != "--debug"])
    except (ValueError, OSError, FloatingPointError) as error:
        if debug:
            traceback.print_exc()
        # All processes of a run meet a user's error alike; a full disk may be one machine's own.
        if (rank := os.environ.get("RANK", "0")) == "0":
            print(f"t2ialign: error: {_one_line(error)}", file=sys.stderr)
        elif isinstance(error, OSError):
            print(f"t2ialign: error: process {rank}: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"t2ialign {__version__}")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else "see t2ialign --help"
        raise ValueError(f"got verb {name!r}; expected one of {', '.join(VERBS)}; {hint}")
    verb = import_module(f"t2ialign.{name}")
    parser = Parser(prog=f"t2ialign {name}", description=VERBS[name], conflict_handler="resolve")
    verb.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    # Intermixed: `train dpo -c recipe.yaml lr=1e-5` has positionals on both sides of an option.
    return verb.run(parser.parse_intermixed_args(rest)) or 0


def _overview() -> str:
    verbs = "\n".join(f"  {name:<10}{text}" for name, text in VERBS.items())
    return (
        "usage: t2ialign VERB ... [--debug] [--version]\n\n"
        "Align text-to-image diffusion models, and prove that it helped.\n\n"
        f"verbs:\n{verbs}\n\n"
        "t2ialign VERB --help lists a verb's options; t2ialign train METHOD --help a method's settings."
    )


def _one_line(error: Exception) -> str:
    text = one_line(str(error)) or type(error).__name__
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"{text}; free some disk space and run the same command again; if that says that the folder "
            "is in use, it says how to continue"
        )
    return text


class _Once(logging.Filter):
    """Lets each warning through once: every batch may meet the same prompt that is too long."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is news."""
        text = record.getMessage()
        known = record.levelno >= logging.WARNING and text in self.seen
        self.seen.add(text)
        return not known


@contextmanager
def _one_line_messages() -> Iterator[None]:
    """Our notes and all warnings as single lines on stderr; of several processes only the first one notes."""
    handler, loggers = logging.StreamHandler(), [logging.getLogger(name) for name in ("t2ialign", "rewards")]
    handler.setFormatter(OneLine("t2ialign: %(message)s"))
    handler.addFilter(_Once())
    plain, levels = warnings.formatwarning, [logger.level for logger in loggers]
    warnings.formatwarning = _format_warning
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    try:
        yield
    finally:
        warnings.formatwarning = plain
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"t2ialign: warning: {one_line(str(message))}\n"
