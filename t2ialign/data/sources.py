"""Rows of a data set wherever it lies: a file, a folder, the Hub; streamed, so its size does not matter."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from t2ialign.data.files.parquet import read_parquet
from t2ialign.data.files.tables import TABLES, Row, Select, read_table
from t2ialign.data.files.walk import SkippedFiles, ending, walk
from t2ialign.data.folder import folder_rows, is_pair_folder
from t2ialign.data.images import ENDINGS

FILES = TABLES
LIBRARY = (
    *FILES,
    *(".zip", ".rar", ".7z", ".tar", ".tgz", ".gz", ".zst"),
    *(".arrow", ".ndjson", ".py", ".lance", ".h5", ".hdf5", ".xml"),
)
"""Endings of the files by which `datasets` may open a folder, besides images."""
ALIKE = frozenset(
    (
        *("chosen", "rejected", "winner", "winners", "win", "loser", "losers", "lose", "preferred"),
        *("better", "worse", "good", "bad", "positive", "negative", "accepted", "dispreferred"),
    )
)
"""Names, in lower case, by which people may call the two sub-folders of pairs."""


def read_rows(source: str, *, select: Select, split: str, streaming: bool) -> tuple[Iterator[Row], Path]:
    """Rows of `source`, and the folder that relative paths in them start from.

    A file (.parquet, .jsonl, .json, .csv, .tsv), a folder with chosen/ and rejected/, a folder of parquet
    files, a folder from `Dataset.save_to_disk`, else whatever `datasets.load_dataset` opens: another kind
    of folder, or the Hub ("owner/name" or "owner/name:config"). Of parquet only selected columns are read.
    Raises ValueError if there is no such thing.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return read_table(path, select), path.parent
    if not path.is_dir():
        if path.suffix.lower() in FILES or source.startswith((".", "/", "~")) or source.count("/") > 1:
            raise ValueError(f"got {source}, which does not exist; expected a file or folder; check the path")
        return _library_rows(source, split, streaming), Path()
    if is_pair_folder(path):
        return folder_rows(path), Path()
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _saved_rows(path, split), path
    files, skipped = walk(path)
    if any(ending(file) == ".parquet" for file in files):
        files = _of_split(path, files, split, skipped)
        return (row for file in files for row in read_parquet(file, select)), path
    _check_layout(path, files)
    return _library_rows(source, split, True), path


def parquet_files(folder: Path, split: str) -> list[Path]:
    """The folder's parquet files of a split, told by their names: "train-00000.parquet", "test/0.parquet".

    Where no name tells a split, all are "train". Hidden files and those of operating systems are skipped.
    Raises ValueError if the split is not there.
    """
    files, skipped = walk(folder)
    return _of_split(folder, files, split, skipped)


def _of_split(folder: Path, files: list[Path], split: str, skipped: SkippedFiles) -> list[Path]:
    skipped.note(folder)
    files = [file for file in files if ending(file) == ".parquet"]
    words = {file: set(re.split(r"[^a-z0-9]+", str(file.relative_to(folder)).lower())) for file in files}
    told = any(words[file] & {"train", "validation", "valid", "val", "dev", "test", split} for file in files)
    chosen = [file for file in files if split in words[file]] if told else files
    if not chosen or (not told and split != "train"):
        names = ", ".join(file.name for file in files[:3])
        raise ValueError(
            f"got split {split!r}; expected it in a file name in {folder} ({names}); choose another split"
        )
    return chosen


def identity(source: str) -> dict[str, str]:
    """What tells one version of a file or folder from another: its name, and a hash of its sizes and dates.

    For the fingerprint of a cache; it survives moving. What `walk` skips does not count.
    What lies elsewhere is known by its name alone.
    """
    path = Path(source).expanduser()
    if not path.exists():
        return {"name": source}
    files = [path] if path.is_file() else [file for file in walk(path)[0] if file.exists()]
    stats = ((file.relative_to(path.parent), file.stat()) for file in files)
    lines = (f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode() for name, stat in stats)
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        digest.update(line)
    return {"name": path.resolve().name, "digest": digest.hexdigest()}


def _check_layout(folder: Path, files: list[Path]) -> None:
    """Raises ValueError for a folder of images where no table, or no sub-folder, says which are chosen."""
    images = [file for file in files if ending(file) in ENDINGS]
    parts = sorted({file.relative_to(folder).parts[0] for file in images if file.parent != folder})
    tables = any(ending(file) in LIBRARY for file in files)
    if not images or (tables and not any(part.lower() in ALIKE for part in parts)):
        return
    there = ", ".join(f"{part}/" for part in parts[:4]) or "no sub-folders"
    raise ValueError(
        f"got {folder}, a folder of images with {there}; expected sub-folders chosen/ and rejected/, or a "
        "table of prompts and images; rename the sub-folders, or name the table"
    )


def _saved_rows(path: Path, split: str) -> Iterator[Row]:
    import datasets

    data = datasets.load_from_disk(str(path))
    if isinstance(data, dict):
        if split not in data:
            raise ValueError(f"got split {split!r}; expected one of {', '.join(data)}, which {path} holds")
        data = data[split]
    return _encoded(str(path), data)


def _library_rows(name: str, split: str, streaming: bool) -> Iterator[Row]:
    import datasets

    path, _, config = name.partition(":")
    try:
        data = datasets.load_dataset(
            path, config or None, split=split, streaming=streaming, trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"got data set {name!r}, split {split!r}, which does not open ({_line(error)}); expected a file, "
            "a folder or a name on the Hub; check the name, the split and the network"
        ) from error
    return _encoded(name, data)


def _encoded(name: str, data: Any) -> Iterator[Row]:
    """Rows with images and the like still encoded: `datasets` would open them as any format there is.

    Columns that hold them within lists or mappings, which nothing here reads, are left out.
    """
    for column, feature in (data.features or {}).items():
        if _is_decoded(feature):
            data = data.cast_column(column, replace(feature, decode=False))
        elif any(map(_is_decoded, _parts(feature))):
            data = data.remove_columns([column])
    number = 0
    try:
        for row in data:
            yield f"{name} row {number}", row
            number += 1
    except Exception as error:  # whatever the network's libraries raise
        raise ValueError(
            f"got data set {name!r}, which breaks at row {number} ({_line(error)}); expected more rows; "
            "check the network and run the same command again"
        ) from error


def _is_decoded(feature: Any) -> bool:
    """Whether `datasets` opens a file for it: an image, a sound, a film; JSON is only read."""
    return getattr(feature, "decode", False) is True and type(feature).__name__ != "Json"


def _parts(feature: Any) -> Iterator[Any]:
    """The members of a column of lists or mappings, at any depth."""
    inner = getattr(feature, "feature", feature if isinstance(feature, dict | list) else ())
    for part in inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else [inner]:
        if part != ():
            yield part
            yield from _parts(part)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
