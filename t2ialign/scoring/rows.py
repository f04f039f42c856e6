"""Images in tables: parquet with image bytes, tables that name files, data sets on the Hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2ialign.data.files.tables import first_of
from t2ialign.data.images import LONGEST_PATH, image_of
from t2ialign.data.prompts import PROMPT_COLUMNS, prompt_or_none
from t2ialign.data.sources import parquet_files, read_rows
from t2ialign.io import naming
from t2ialign.io.messages import listed
from t2ialign.scoring.items import Item, Source, stamp
from t2ialign.scoring.prompts import FILE_COLUMNS, Prompts, normal

IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "jpeg", "png", "webp", *FILE_COLUMNS)
"""Names that a column of images goes by, in order of preference, letter case aside."""


@dataclass(frozen=True)
class Columns:
    """Columns of a table, where they go by none of the usual names, and the split of a data set."""

    image: str | None = None
    prompt: str | None = None
    split: str = "train"


def files(name: str, paths: Sequence[Path], prompts: Prompts, columns: Columns) -> Source:
    """Tables (.parquet, .jsonl, .json, .csv, .tsv), one shard each; images are bytes or paths.

    Of several, one that breaks off is a row with an error. Raises ValueError for a table of prompts.
    """
    _no_table(prompts)
    root = Path(name) if Path(name).is_dir() else Path(name).parent
    labels = [path.relative_to(root).as_posix() for path in paths]

    def read(shard: int) -> Iterator[Item]:
        path, count = paths[shard], 0
        try:
            for item in _items(str(path), shard, labels[shard], prompts, columns):
                yield item
                count += 1
        except ValueError as error:
            if len(paths) == 1 or count == shard == 0:
                raise
            yield Item(shard, count, labels[shard], None, None, stamp(path), error=str(error))

    return Source(name, labels, read, _total(paths))


def folder(path: Path, prompts: Prompts, columns: Columns) -> Source:
    """A folder of parquet files, or of `Dataset.save_to_disk`. Raises ValueError if the split is absent."""
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return hub(str(path), prompts, columns)
    return files(str(path), parquet_files(path, columns.split), prompts, columns)


def hub(name: str, prompts: Prompts, columns: Columns) -> Source:
    """The rows of a dataset on the Hub, streamed. Raises ValueError when read, if there is none."""
    _no_table(prompts)
    return Source(name, [name], lambda _: _items(name, 0, name, prompts, columns))


def _items(source: str, shard: int, label: str, prompts: Prompts, columns: Columns) -> Iterator[Item]:
    """Items of one table. Raises ValueError where it does not open, lacks a column or breaks off."""
    rows, base = read_rows(
        source,
        select=lambda where, names: _select(where, names, prompts, columns),
        split=columns.split,
        streaming=True,
    )
    mark, seen = stamp(Path(source)), Counter[tuple[str, str | None]]()
    for number, (where, row) in enumerate(rows):
        image, *text = _select(where, list(row), prompts, columns)
        file = _file(row[image])
        name = file or f"{label}#{number}"
        try:
            prompt = _prompt(where, name, row[text[0]] if text else None, prompts)
            content = image_of(where, row[image], base)
        except ValueError as error:
            yield Item(shard, number, name, None, None, mark, error=str(error))
            continue
        repeat = 0
        if file:
            repeat, seen[file, prompt] = seen[file, prompt], seen[file, prompt] + 1
        yield Item(
            *(shard, number, name, prompt, content),
            stamp=stamp(content) if isinstance(content, Path) else mark,
            repeat=repeat,
        )


def _select(where: str, names: list[str], prompts: Prompts, columns: Columns) -> list[str]:
    """The image's column, and the prompt's if it is needed and there. Raises ValueError if one is not."""
    image = first_of(names, [columns.image] if columns.image else IMAGE_COLUMNS)
    text = first_of(names, [columns.prompt] if columns.prompt else PROMPT_COLUMNS)
    if image is None or (columns.prompt and text is None):
        wanted = columns.prompt if image else columns.image or "one of " + ", ".join(IMAGE_COLUMNS)
        raise ValueError(
            f"{where}: got columns {listed(names)}; expected {wanted}; name it with "
            f"{'--prompt-column' if image else '--image-column'}"
        )
    return [image] if text is None or prompts.fixed else [image, text]


def _file(value: Any) -> str | None:
    """The name in a cell that holds a path; None for bytes, whose names need not be unique."""
    if isinstance(value, dict) and value.get("bytes") is None:
        value = value.get("path")
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_PATH:
        return None
    return value if "://" in value else normal(value)


def _prompt(where: str, file: str, value: Any, prompts: Prompts) -> str | None:
    return prompts.of(file, prompt_or_none(where, value))[0]


def _no_table(prompts: Prompts) -> None:
    if prompts.table is not None:
        raise ValueError(
            f"got a table of {naming.name('prompts')} for a source whose rows carry their own; expected "
            f"none; leave it out, or name the column with {naming.name('prompt_column')}"
        )


def _total(paths: Sequence[Path]) -> int | None:
    """Rows in parquet files, which say so themselves; None for others and for broken ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if any(path.suffix.lower() != ".parquet" for path in paths):
        return None
    try:
        return sum(pq.ParquetFile(path).metadata.num_rows for path in paths)
    except (pa.ArrowException, OSError):  # reading it will say what is wrong
        return None
