"""Preference pairs into a file that `read_pairs` reads: JSON lines name images, parquet holds them."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from t2ialign.data.cache.shards import whole_file
from t2ialign.data.images import ImageSource, open_rgb
from t2ialign.data.pairs import LABELLED, PairRecord
from t2ialign.data.remote import Remote
from t2ialign.io import naming

SUFFIXES = (".jsonl", ".parquet")
GROUP = 64
"""Pairs of a parquet row group, which is what a reader has in memory at once."""

Figures = Mapping[str, float]
"""Columns of numbers beside a pair; names as readers of pairs ignore them."""


def check_output(path: Path) -> None:
    """Raises ValueError unless the ending is one of `SUFFIXES`."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"got {naming.given('output', path)}; expected an ending of {', '.join(SUFFIXES)}; rename it"
        )


def check_record(record: PairRecord, path: Path) -> PairRecord:
    """The record. Raises ValueError if it has an image without a path or an address, for JSON lines."""
    for image in (record.win, record.lose):
        check_file(image, record.name, path)
    return record


def check_file(image: ImageSource, name: str, path: Path) -> Any:
    """The image. Raises ValueError if it has neither a path nor an address, for JSON lines."""
    if not isinstance(image, Path | Remote) and path.suffix.lower() == ".jsonl":
        raise ValueError(
            f"{name}: got an image that is no file for {path}, which names files; expected an output that "
            "holds images; name it .parquet"
        )
    return image


def write_pairs(path: Path, rows: Iterable[tuple[PairRecord, Figures]], figures: Sequence[str] = ()) -> None:
    """Write pairs, each with its numbers called `figures`, by the ending of `path`; whole or not at all.

    In JSON lines images are paths relative to the file, so that both may move together, or addresses;
    parquet holds the images' bytes. Columns are prompt, jpg_0 (the winner), jpg_1, label_0, label_1, then
    the figures.
    Raises ValueError for another ending and for an image that does not fit it; OSError where an image
    cannot be read or the file not be written.
    """
    check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        if path.suffix.lower() == ".parquet":
            _write_parquet(partial, (_row(*row, bytes_of) for row in rows), figures)
        else:
            folder = path.parent.resolve()
            checked = ((check_record(record, path), numbers) for record, numbers in rows)
            # A file's name may hold bytes that are no text: they become escapes, which JSON reads back.
            with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
                for row in checked:
                    content = _row(*row, lambda image: named(image, folder))
                    file.write(json.dumps(content, ensure_ascii=False) + "\n")


def _row(record: PairRecord, figures: Figures, shown: Any) -> dict[str, Any]:
    images = shown(record.win), shown(record.lose)
    labels = record.preference, 1 - record.preference
    return {"prompt": record.prompt, **dict(zip(LABELLED, (*images, *labels), strict=True)), **figures}


def named(image: Path | Remote, folder: Path) -> str:
    """The path of an image from a folder, or its address."""
    return image.address if isinstance(image, Remote) else os.path.relpath(image.resolve(), folder)


def bytes_of(image: ImageSource) -> bytes:
    """The content of an image file, or the image as PNG."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, Path):
        return image.read_bytes()
    if isinstance(image, Remote):
        return image.fetch()
    stream = io.BytesIO()
    open_rgb(image).save(stream, "PNG")
    return stream.getvalue()


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]], figures: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first, second, *labels = LABELLED
    numbers = [(name, pa.float64()) for name in (*labels, *figures)]
    schema = pa.schema([("prompt", pa.string()), (first, pa.binary()), (second, pa.binary()), *numbers])
    with pq.ParquetWriter(path, schema) as writer:
        while group := list(islice(rows, GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
