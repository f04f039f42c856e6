"""Which code and weights a figure was measured on."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import rewards
from rewards.assets import root

PACKAGE = Path(__file__).resolve().parents[1]


def source_hash() -> str:
    """16 hex digits of every Python file and embedded weight that the product runs; the same in a wheel."""
    return hash_files(
        [
            ("rewards", Path(rewards.__file__).resolve().parent, "*.py"),
            ("t2ialign", PACKAGE, "*.py"),
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
