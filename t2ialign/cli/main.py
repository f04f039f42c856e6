"""The command line: finds the verb's file, and turns a user's error into one line and exit code 2."""

from __future__ import annotations

import argparse
import difflib
import errno
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from t2ialign.cli.examples import EXAMPLES
from t2ialign.cli.former import today
from t2ialign.cli.interrupt import heeded
from t2ialign.cli.terminal import READER_LEFT, open_closed, plain_output, reader_left
from t2ialign.io import naming
from t2ialign.io.messages import OneLine, one_line
from t2ialign.io.paths import expand_word
from t2ialign.version import __version__

# A verb is a file here, VERB.py, with add_arguments(parser) and run(args) -> exit code or None. Only the
# one that is called is imported, so that the help stays instant.
VERBS = {
    "train": "Align a model with preferences or a reward, or train a reward or a rewriter",
    "recipes": "List the recipes for t2ialign train -c NAME, or print one of them",
    "sample": "Render images from prompts, with any number of LoRAs",
    "mix": "Mix two LoRAs into one that is exactly alpha * A + (1 - alpha) * B",
    "export": "Write a LoRA for ComfyUI, A1111 or diffusers, or merge it into its base model",
    "score": "Score any number of images with any number of rewards, into one table",
    "evaluate": "Score a folder of samples with a reward, and report confidence intervals",
    "rewrite": "Rewrite prompts before generation, and check that no requested detail is lost",
    "keypoints": "Judge each key point of a prompt on its image, and report accuracy by kind",
    "pairs": "Make preference pairs, or likes, from a model and rewards, a folder, rankings or scores",
    "filter": "Keep the preference pairs that three rewards do not contradict",
    "monitor": "Plot the held-out rewards of runs, and report where a run over-optimises",
    "demo": "Run the whole workflow on the toy model, from prompts to report.html",
    "prove": "Measure the claims of this project over several seeds, into proofs/",
}


FREE_WORDS = ("prompt", "runs")
"""Arguments that take any number of words, whatever they are."""
TOO_LARGE = ("can't allocate memory", "out of memory", "multiplication overflow", "calculation overflow")
"""Words in torch's RuntimeError about tensors that do not fit into memory."""
OPTION = re.compile(r"^ {2}(?:-\w\b[^,\n]*, )?(--[\w-]+)", re.M)
"""The beginning of an option in a help text."""


class HelpFormatter(argparse.HelpFormatter):
    """argparse's formatter, which leaves the lines of the examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """argparse that knows ~ wherever a path begins, as in --output=~/x, which no shell expands.

    Its errors are raised, so that they take the same way out as every other user error.
    """

    def parse_known_args(  # type: ignore[override]  # of all its overloads the one that is used
        self, args: Sequence[str], namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse the words as argparse does, with every path in full."""
        words = [_dashed(expand_word(word)) for word in args]
        return super().parse_known_args(today(words, self._options), namespace)

    def error(self, message: str) -> NoReturn:
        """Raises ValueError instead of printing the usage and leaving."""
        _, colon, words = message.partition("unrecognized arguments: ")
        if colon:
            message = f"got {words}; expected an option of {self.prog}; {self._meant(words.split()[0])}"
        raise ValueError(f"{message}; see {self.prog} --help")

    def check_words(self, args: argparse.Namespace) -> None:
        """Raises ValueError for seed=20 in the place of a prompt, where --seed 20 is meant."""
        for word in (str(word) for name in FREE_WORDS for word in getattr(args, name, [])):
            if (option := self._assigned(word)) is not None:
                raise ValueError(
                    f"got {word}; expected an option with dashes, or a prompt of this form in a file; "
                    f"write {option} {word.partition('=')[2]}"
                )

    def _meant(self, word: str) -> str:
        """A hint at what to write in place of a word that no option takes."""
        if (option := self._assigned(word)) is not None:
            return f"write {option}={word.partition('=')[2]}"
        if near := difflib.get_close_matches(word.partition("=")[0], self._options(), n=1):
            return f"did you mean {near[0]}?"
        if Path(word).exists():
            return 'put a pattern in quotes, such as "images/*.png", so that the shell leaves it alone'
        short = word[0] == "-" and word[1] != "-" and len(word) > 2
        return f"write -{word}, with two dashes" if short else "drop it, or quote what belongs together"

    def _assigned(self, word: str) -> str | None:
        """--seed for seed=20, if there is such an option."""
        name, equals, _ = word.partition("=")
        option = "--" + name.replace("_", "-")
        return option if equals and option in self._options() else None

    def _options(self) -> list[str]:
        """The long names of all options."""
        return OPTION.findall(self.format_help())


def main(argv: list[str] | None = None) -> int:
    """Run one command -> its exit code.

    That is 0, a verb's own, 2 for a user's error, 130 after Ctrl-C, or 141 if the reader of a pipe has left.
    """
    open_closed()
    argv = list(sys.argv[1:] if argv is None else argv)
    debug, quiet = "--debug" in argv, "-q" in argv or "--quiet" in argv
    try:
        with heeded(), _one_line_messages(quiet), plain_output(quiet):
            return _run([item for item in argv if item not in ("--debug", "-q", "--quiet")])
    except (ValueError, OSError, FloatingPointError) as error:
        if isinstance(error, BrokenPipeError) and reader_left():
            return READER_LEFT
        if debug:
            traceback.print_exc()
        # All processes of a run meet a user's error alike; a full disk may be one machine's own.
        if (rank := os.environ.get("RANK", "0")) == "0":
            print(f"t2ialign: error: {_one_line(error)}", file=sys.stderr)
        elif isinstance(error, OSError):
            print(f"t2ialign: error: process {rank}: {_one_line(error)}", file=sys.stderr)
        return 2
    except (RuntimeError, OverflowError, MemoryError) as error:
        if not _is_beyond(error):
            raise
        if debug:
            traceback.print_exc()
        if os.environ.get("RANK", "0") == "0":
            print(f"t2ialign: error: {_beyond(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print("t2ialign: interrupted", file=sys.stderr)
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
    verb, parser = import_module(f"t2ialign.cli.{name}"), parser_of(name)
    if hasattr(verb, "plain"):
        rest = verb.plain(rest)
    # Intermixed: `train dpo -c recipe.yaml lr=1e-5` has positionals on both sides of an option.
    args = parser.parse_intermixed_args(rest)
    parser.check_words(args)
    with naming.on_command_line(getattr(verb, "FLAGS", {})):
        return verb.run(args) or 0


def parser_of(name: str) -> Parser:
    """The parser of a verb, with its options, those of every verb, and its examples."""
    parser = Parser(
        prog=f"t2ialign {name}",
        description=VERBS[name],
        epilog=f"examples:{EXAMPLES[name]}",
        conflict_handler="resolve",
        formatter_class=HelpFormatter,
    )
    import_module(f"t2ialign.cli.{name}").add_arguments(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="Print only results, warnings and errors.")
    parser.add_argument("--debug", action="store_true", help="Print the Python traceback of an error.")
    if parser.description == VERBS[name]:
        parser.description += "."
    return parser


def _overview() -> str:
    verbs = "\n".join(f"  {name:<10}{text}" for name, text in VERBS.items())
    return (
        "usage: t2ialign VERB ... [-q] [--debug] [--version]\n\n"
        "Align text-to-image diffusion models by preferences and rewards, and measure whether it helped.\n\n"
        f"verbs:\n{verbs}\n\n"
        "options of every verb:\n"
        "  -q, --quiet   Print only results, warnings and errors.\n"
        "  --debug       Print the Python traceback of an error.\n\n"
        "t2ialign VERB --help lists the options of a verb.\n"
        "t2ialign train METHOD --help lists the settings of a method."
    )


def _dashed(word: str) -> str:
    """An option with dashes, --batch-size, which may be written --batch_size."""
    option, equals, value = word.partition("=")
    return option.replace("_", "-") + equals + value if word.startswith("--") else word


def _one_line(error: Exception) -> str:
    text = one_line(str(error)) or type(error).__name__
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"{text}; free some disk space and run the same command again; if that says that the folder "
            "is in use, it says how to continue"
        )
    return text


def _is_beyond(error: Exception) -> bool:
    """Whether a value that is too large or too deeply nested led to it; torch has no kind of its own."""
    return not isinstance(error, RuntimeError) or isinstance(error, RecursionError) or _is_too_large(error)


def _is_too_large(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or any(words in str(error) for words in TOO_LARGE)


def _beyond(error: Exception) -> str:
    """What a value that is too large or too deeply nested led to, and what to do."""
    what = one_line(str(error)) or type(error).__name__
    if isinstance(error, MemoryError) or _is_too_large(error):
        return f"got too little memory ({what}); expected more; lower the size of batches or of images"
    kind = "a smaller number" if isinstance(error, OverflowError) else "files that are nested less deeply"
    return f"got {what}; expected {kind}; --debug shows where"


class _Once(logging.Filter):
    """Lets each warning through once: every batch may meet the same prompt that is too long."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record was not shown before."""
        text = record.getMessage()
        known = record.levelno >= logging.WARNING and text in self.seen
        self.seen.add(text)
        return not known


@contextmanager
def _one_line_messages(quiet: bool) -> Iterator[None]:
    """Our notes and all warnings as single lines on stderr; of several processes only the first one notes.

    quiet: warnings alone.
    """
    handler, loggers = logging.StreamHandler(), [logging.getLogger(name) for name in ("t2ialign", "rewards")]
    handler.setFormatter(OneLine("t2ialign: %(message)s"))
    handler.addFilter(_Once())
    plain, levels = warnings.formatwarning, [logger.level for logger in loggers]
    warnings.formatwarning = _format_warning
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING if quiet or os.environ.get("RANK", "0") != "0" else logging.INFO)
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
