"""Rows of a parquet file, a few at a time, with the selected columns only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from t2ialign.io.messages import listed, one_line

ROWS = 16
"""Rows in memory at a time, besides those that the file's row groups force."""


def read_parquet(
    path: Path, select: Callable[[str, list[str]], list[str]] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row); `select` is given the file and its columns and says which to read, all without it.

    Raises ValueError for a file that is cut or no parquet, and for two columns of one name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        file = pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise ValueError(f"got columns {listed(names)} in {path}; expected each name once; rename one")
        columns = select(str(path), names) if select is not None else names
        for batch in file.iter_batches(ROWS, columns=columns, use_threads=False):
            for row in batch.to_pylist():
                yield f"{path} row {number}", row
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"got {path}, which breaks at row {number} ({one_line(str(error), 300)}); expected a whole "
            "parquet file; fetch it again"
        ) from error
