"""The folder of the toy models and suites: inside the installed package, or in the checkout."""

from __future__ import annotations

from pathlib import Path

from rewards.renamed import current

PACKAGE = Path(__file__).resolve().parent
TOYS = ("toy", "toy-flow")
"""The models there are among the assets, by the names that stand for their folders."""


def root() -> Path:
    """The folder of all assets: `rewards/assets` of an installed wheel, else `assets` of the checkout."""
    installed = PACKAGE / "assets"
    return installed if installed.is_dir() else PACKAGE.parent / "assets"


def folder(name: str) -> Path:
    """The folder of one asset, such as "toy". Raises ValueError, listing what is there, if absent."""
    path = root() / current(name)
    if not path.is_dir():
        there = sorted(p.name for p in root().glob("*") if p.is_dir()) or ["nothing"]
        raise ValueError(
            f"got asset {name!r}; expected one of {', '.join(there)} in {root()}; reinstall t2ialign"
        )
    return path
