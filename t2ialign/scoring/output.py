"""The table of scores: written at once as parquet, CSV or JSON lines, read back, merged, and summed up."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.io import naming
from t2ialign.io.messages import listed, quoted

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".csv", ".jsonl")
FIRST, LAST = ("file", "prompt", "shard", "row"), ("error",)
"""Columns before and after those of the rewards."""
CHUNK = 65_536
"""Rows in memory as Python objects at a time; as columns all are."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """One reward's scores: their number, mean, standard deviation (of a sample) and range; NaN if none."""

    count: int
    mean: float
    sd: float
    low: float
    high: float
    errors: int
    """Rows without a score."""


def check_output(path: Path) -> None:
    """Raises ValueError unless the ending is one of `SUFFIXES`."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"got {naming.given('output', path)}; expected an ending of {', '.join(SUFFIXES)}; rename it"
        )


def table(rows: Iterable[Row], rewards: Sequence[str]) -> pa.Table:
    """Journal rows -> a table in the order of the source: file, prompt, shard, row, each reward, error."""
    import pyarrow as pa

    stream, parts = iter(rows), []
    while chunk := list(islice(stream, CHUNK)):
        columns: dict[str, list[Any]] = {
            "file": [text(row["file"]) for row in chunk],
            "prompt": [text(row["prompt"]) for row in chunk],
            **{name: [row[name] for row in chunk] for name in ("shard", "row")},
            **{name: [row["scores"].get(name) for row in chunk] for name in rewards},
            "error": [text(row["error"]) for row in chunk],
        }
        parts.append(pa.table(columns, schema=schema(rewards)))
    whole = pa.concat_tables(parts) if parts else schema(rewards).empty_table()
    return whole.sort_by([("shard", "ascending"), ("row", "ascending")])


def schema(rewards: Sequence[str]) -> pa.Schema:
    """The columns and their types. Raises ValueError if a reward has the name of another column."""
    import pyarrow as pa

    if clash := set(rewards) & {*FIRST, *LAST}:
        raise ValueError(f"got a reward called {', '.join(clash)}, which is a column of the table; rename it")
    types = [("file", pa.string()), ("prompt", pa.string()), ("shard", pa.int32()), ("row", pa.int64())]
    return pa.schema([*types, *((name, pa.float64()) for name in rewards), ("error", pa.string())])


def write(scores: pa.Table, path: Path) -> None:
    """Write by the ending of `path`: a reader sees the old file or the new one, never half."""
    import pyarrow.csv
    import pyarrow.parquet

    from t2ialign.data.cache.shards import whole_file

    check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        if path.suffix.lower() == ".parquet":
            pyarrow.parquet.write_table(scores, partial)
        elif path.suffix.lower() == ".csv":
            pyarrow.csv.write_csv(scores, partial)
        else:
            with partial.open("w", encoding="utf-8") as file:
                for batch in scores.to_batches(CHUNK):
                    file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())


def read(path: Path) -> pa.Table:
    """Read a table of `write`. Raises ValueError for a missing or broken file, or one with other columns."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    check_output(path)
    if not path.is_file():
        raise ValueError(f"got {path}, which does not exist; expected a table of scores; check the path")
    try:
        if path.suffix.lower() == ".parquet":
            return _typed(pyarrow.parquet.read_table(path), path)
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8") as file:
                names = [name.strip('"') for name in file.readline().rstrip("\n").split(",")]
            kinds = {field.name: field.type for field in schema(_rewards(names, path))}
            options = pa.csv.ConvertOptions(
                column_types=kinds, strings_can_be_null=True, quoted_strings_can_be_null=False
            )
            parse = pa.csv.ParseOptions(newlines_in_values=True)
            return _typed(pa.csv.read_csv(path, convert_options=options, parse_options=parse), path)
        with path.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        if odd := next((row for row in rows if not isinstance(row, dict)), None):
            raise TypeError(f"a row is {quoted(odd)}")
        names = list(rows[0]) if rows else [*FIRST, *LAST]
        return pa.Table.from_pylist(rows, schema=schema(_rewards(names, path)))
    except ValueError as error:
        if not isinstance(error, pa.ArrowException | UnicodeDecodeError | json.JSONDecodeError):
            raise
        raise ValueError(f"got {path}, which does not read ({error}); expected a table of scores") from error
    except (pa.ArrowException, OSError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError(f"got {path}, which does not read ({error}); expected a table of scores") from error


def merge(paths: Sequence[Path]) -> pa.Table:
    """The tables of all processes of a run as one, in the order of the source.

    Raises ValueError if files are missing of a set named "X.rank0-of-4.parquet", if columns differ, and if
    two files hold the same row.
    """
    import pyarrow as pa

    _check_ranks(paths)
    parts = [read(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.schema.names != parts[0].schema.names:
            raise ValueError(
                f"got columns {', '.join(part.schema.names)} in {path} and "
                f"{', '.join(parts[0].schema.names)} in {paths[0]}; expected the same; merge those of one run"
            )
    whole = pa.concat_tables(parts).sort_by([("shard", "ascending"), ("row", "ascending")])
    places = whole.group_by(["shard", "row"]).aggregate([([], "count_all")])
    if whole.num_rows != places.num_rows:
        twice = next(row for row in places.to_pylist() if row["count_all"] > 1)
        raise ValueError(
            f"got row {twice['row']} of shard {twice['shard']} more than once; expected one score a row; "
            "merge the files of one run only"
        )
    return whole


def rank_path(output: Path, rank: int, world: int) -> Path:
    """The file of process `rank` of `world`: the output if it is alone, else "X.rank0-of-4.parquet"."""
    if world == 1:
        return output
    return output.with_name(f"{output.stem}.rank{rank}-of-{world}{output.suffix}")


def rewards_of(scores: pa.Table) -> list[str]:
    """The columns of rewards."""
    return [name for name in scores.schema.names if name not in (*FIRST, *LAST)]


def summarise(scores: pa.Table) -> dict[str, Summary]:
    """Reward -> `Summary` of its scores."""
    import pyarrow.compute as pc

    summaries = {}
    for name in rewards_of(scores):
        column = scores[name]
        ends = pc.min_max(column).as_py()
        numbers = (pc.mean(column).as_py(), pc.stddev(column, ddof=1).as_py(), ends["min"], ends["max"])
        mean, sd, low, high = (float("nan") if number is None else number for number in numbers)
        summaries[name] = Summary(len(column) - column.null_count, mean, sd, low, high, column.null_count)
    return summaries


def broken(scores: pa.Table) -> int:
    """The number of rows with an error."""
    return len(scores) - int(scores["error"].null_count)


def number(value: float | None) -> str:
    """A score or a figure of a summary as people read it: "0.2713", "1.2e-05", "-" where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"


def show(summaries: Mapping[str, Summary], title: str) -> None:
    """Print the summary as a table."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, title_justify="left")
    shown.add_column("", overflow="fold")
    for name in ("n", "mean", "sd", "min", "max", "errors"):
        shown.add_column(name, justify="right")
    for name, one in summaries.items():
        numbers = map(number, (one.mean, one.sd, one.low, one.high))
        shown.add_row(name, str(one.count), *numbers, str(one.errors))
    Console(markup=False).print(shown)


def _check_ranks(paths: Sequence[Path]) -> None:
    named = [re.search(r"\.rank(\d+)-of-(\d+)\.\w+$", path.name) for path in paths]
    worlds = {match[2] for match in named if match}
    if not worlds:
        return
    if len(worlds) > 1 or None in named:
        raise ValueError(
            f"got {', '.join(path.name for path in paths)}; expected the files of one run; name no others"
        )
    world, have = int(worlds.pop()), Counter(int(match[1]) for match in named if match)
    if missing := sorted(set(range(world)) - set(have)):
        raise ValueError(
            f"got {len(have)} of {world} files, without rank {', '.join(map(str, missing))}; expected all; "
            "wait for every process, or run the missing one again with --resume latest"
        )


def _rewards(names: Sequence[str], path: Path) -> list[str]:
    if not {*FIRST, *LAST} <= set(names):
        raise ValueError(
            f"got columns {listed(names)} in {path}; expected {', '.join(FIRST)}, rewards, error; give a "
            "table of t2ialign score"
        )
    return [name for name in names if name not in (*FIRST, *LAST)]


def _typed(scores: pa.Table, path: Path) -> pa.Table:
    wanted = schema(_rewards(scores.schema.names, path))
    return scores.select(wanted.names).cast(wanted)


def text(value: str | None) -> str | None:
    """The text as tables hold it: file names may have bytes that are no UTF-8, which become escapes."""
    return None if value is None else value.encode("utf-8", "backslashreplace").decode()
