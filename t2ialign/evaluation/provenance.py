"""Which code and weights a figure was measured on: all that there is, or the files that a run has loaded."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rewards
from rewards.assets import root
from t2ialign.io import atomic

PACKAGE = Path(__file__).resolve().parents[1]
SCRIPTS = PACKAGE.parent / "scripts"
"""Of the repository; a wheel does not carry it."""
RECORD = "loaded.json"
"""In the folder of a run, or of what runs share: the files that other processes loaded to make it."""


def source_hash() -> str:
    """16 hex digits of every Python file of packages and experiments, and of every embedded weight."""
    return hash_files(
        [
            ("rewards", Path(rewards.__file__).resolve().parent, "*.py"),
            ("t2ialign", PACKAGE, "*.py"),
            ("experiments", SCRIPTS / "experiments", "*.py"),
            ("assets", root(), "*.safetensors"),
        ]
    )


def hash_files(parts: Sequence[tuple[str, Path, str]]) -> str:
    """16 hex digits of the names and contents of all files below (name, folder, pattern)."""
    digest = hashlib.sha256()
    for name, folder, pattern in parts:
        for file in sorted(folder.rglob(pattern)):
            digest.update(f"{name}/{file.relative_to(folder)}".encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


class LoadedFiles:
    """The project's files that this process loads: its modules, and what it opens from here on.

    An opened asset stands for its whole folder, since the libraries that read weights do not tell Python.
    """

    def __init__(self) -> None:
        self._opened: set[str] = set()
        sys.addaudithook(self._hear)

    def hashes(self) -> dict[str, str]:
        """Path below the project -> 16 hex digits of its content today, of every file up to now."""
        modules = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        files: set[Path] = set()
        for file in map(Path, {*self._opened, *filter(None, modules)}):
            if file.is_absolute() and file.is_file() and "__pycache__" not in file.parts:
                files |= _with_its_asset(file.resolve())
        named = {name: file for file in sorted(files) if (name := _name(file)) is not None}
        return {name: digest for name, file in named.items() if (digest := _hash(file)) is not None}

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str):
            self._opened.add(arguments[0])


def record_of(folder: Path) -> dict[str, str]:
    """The files that `add_to_record` noted there; {} without."""
    return atomic.read_json(folder / RECORD) if (folder / RECORD).is_file() else {}


def add_to_record(folder: Path, hashes: Mapping[str, str]) -> None:
    """Note files that a process loaded for what lies in this folder; what was noted before is kept."""
    atomic.write_json(folder / RECORD, {**hashes, **record_of(folder)})


def changed_files(hashes: Mapping[str, str]) -> list[str]:
    """The recorded files that are absent today, or whose content is another."""
    return [name for name, recorded in hashes.items() if _hash(_place(name)) != recorded]


def why_stale(tree: str, files: Mapping[str, str] | None) -> str | None:
    """Why what was measured does not speak for today's code, or None if it does.

    tree: `source_hash` when it was measured. files: `LoadedFiles.hashes` of the run; without them any change
    of code counts.
    """
    if files:
        changed = changed_files(files)
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"measured on another {changed[0]}{more}; expected today's" if changed else None
    today = source_hash()
    return None if tree == today else f"measured on code {tree}; expected today's, {today}"


def _folders() -> dict[str, Path]:
    """The first part of a recorded path -> the folder it means; assets lie within a wheel's `rewards`."""
    packages = {"rewards": Path(rewards.__file__).resolve().parent, "t2ialign": PACKAGE}
    return {"assets": root(), **packages, "scripts": SCRIPTS}


def _name(file: Path) -> str | None:
    """The recorded path of a file; None for one that is not the project's."""
    for name, folder in _folders().items():
        if file.is_relative_to(folder):
            return f"{name}/{file.relative_to(folder).as_posix()}"
    return None


def _place(name: str) -> Path:
    first, _, rest = name.partition("/")
    return _folders()[first] / rest


def _with_its_asset(file: Path) -> set[Path]:
    if not file.is_relative_to(root()):
        return {file}
    asset = root() / file.relative_to(root()).parts[0]
    return {part for part in asset.rglob("*") if part.is_file()} if asset.is_dir() else {file}


def _hash(file: Path) -> str | None:
    """16 hex digits of the content; None for a file that is absent."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else None
