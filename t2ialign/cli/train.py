"""t2ialign train METHOD: settings from defaults, a recipe and overrides, then the method's trainer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from t2ialign.training.methods import methods, settings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments; `--help` is one of them: after a method it lists that method's settings."""
    parser.add_argument(
        "method",
        nargs="?",
        help=f"The training method: {', '.join(methods())}, or a module of yours as package.module.",
    )
    parser.add_argument(
        "-c",
        "--config",
        metavar="RECIPE",
        help="A YAML file of settings, or the name of a recipe that t2ialign recipes lists.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="A setting of the method, which overrides that of the recipe. The learning rate, for example, "
        "is written lr=1e-5, --lr 1e-5 or --lr=1e-5.",
    )
    parser.add_argument(
        "-h",
        "--help",
        action="store_true",
        help="Show this text, or the settings of the method if one is named.",
    )
    parser.set_defaults(usage=parser.format_help)


def plain(words: Sequence[str]) -> list[str]:
    """The words of the command line with every setting as key=value. Raises ValueError as `run` does."""
    from t2ialign.overrides import as_overrides

    return as_overrides(words, methods(), settings_of)


def run(args: argparse.Namespace) -> None:
    """Train. Raises ValueError for an unknown method, key or value."""
    if args.help:
        print(args.usage() if args.method is None else _settings(args.method))
        return
    if args.method is None:
        raise ValueError(f"got no method; expected one of {', '.join(methods())}; see t2ialign train --help")
    from t2ialign.tasks import training

    training.run(args.method, recipe=args.config, overrides=args.overrides)


def _settings(method: str) -> str:
    from t2ialign import config

    usage = f"usage: t2ialign train {method} [-c recipe.yaml] [key=value ...]"
    forms = "A setting may be written as lr=1e-5, --lr 1e-5 or --lr=1e-5. docs/training.md lists other names."
    cls = settings_of(method)
    examples = f"\n\nexamples:{cls.EXAMPLES.rstrip()}" if cls.EXAMPLES else ""
    return f"{usage}\n\n{forms}\n\n{config.describe(cls)}{examples}"
