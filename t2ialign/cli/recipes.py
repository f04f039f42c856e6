"""t2ialign recipes: the settings that ship, each with its hardware and time; NAME prints one to copy."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NamedTuple

from t2ialign.io.messages import printable
from t2ialign.tasks.recipe_files import files, find

HEADER = re.compile(r"^# (Purpose|Command|Hardware|Time|Result): +(.+(?:\n# {4,}\S.*)*)$", re.M)
"""A field of the comment at the head of a recipe, with the lines that continue it further to the right."""


class Recipe(NamedTuple):
    """The facts about a recipe that the list shows."""

    name: str
    method: str
    model: str
    purpose: str
    hardware: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="The name of a recipe to print in full, instead of the list of all recipes.",
    )


def run(args: argparse.Namespace) -> None:
    """List all recipes, or print one. Raises ValueError for an unknown name."""
    if args.name is not None:
        print(printable(find(args.name).read_text(encoding="utf-8")), end="")
        return
    for file in files():
        recipe = describe(file)
        print(f"{recipe.name}  ({recipe.method}, {recipe.model})")
        print(f"    {recipe.purpose}\n    Hardware: {recipe.hardware}")
    print("\nt2ialign train METHOD -c NAME key=value ... runs one; t2ialign recipes NAME prints it.")


def describe(file: Path) -> Recipe:
    """The facts in its header and its settings."""
    from t2ialign.config import read_yaml

    header, settings = header_of(file), read_yaml(file)
    (method,) = re.findall(r" train (\w+) ", header["Command"])
    model = settings.get("model", settings.get("reward"))
    return Recipe(file.stem, method, str(model), header["Purpose"], header["Hardware"])


def header_of(file: Path) -> dict[str, str]:
    """The fields of the comment at its head, each on one line."""
    fields = HEADER.findall(file.read_text(encoding="utf-8"))
    return {name: " ".join(text.replace("\n#", " ").split()) for name, text in fields}
