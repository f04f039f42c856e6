"""Liked and disliked images into a file that `read_rated` reads: JSON lines or parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from t2ialign.data.cache.shards import whole_file
from t2ialign.data.pair_writer import GROUP, bytes_of, check_file, check_output, named
from t2ialign.data.rated import RatedRecord


def write_likes(path: Path, records: Iterable[RatedRecord]) -> None:
    """Write the columns prompt, image and liked, by the ending of `path`; whole or not at all.

    Raises ValueError for another ending and for an image that does not fit it; OSError where an image cannot
    be read or the file not be written.
    """
    check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        if path.suffix.lower() == ".parquet":
            _write_parquet(partial, records)
            return
        folder = path.parent.resolve()
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
            for record in records:
                image = named(check_file(record.image, record.name, path), folder)
                row = {"prompt": record.prompt, "image": image, "liked": record.liked}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _row(record: RatedRecord) -> dict[str, Any]:
    return {"prompt": record.prompt, "image": bytes_of(record.image), "liked": record.liked}


def _write_parquet(path: Path, records: Iterable[RatedRecord]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("prompt", pa.string()), ("image", pa.binary()), ("liked", pa.bool_())])
    stream = map(_row, records)
    with pq.ParquetWriter(path, schema) as writer:
        while group := list(islice(stream, GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
