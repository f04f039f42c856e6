"""Files of prompts in, files of rewrites out, and a journal from which a killed run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rewards.renamed import updated_words
from t2ialign.io import atomic, jsonl
from t2ialign.io.messages import quoted
from t2ialign.rewriting.rewriter import Rewriter, Rewritten, rewrite_in_parts
from t2ialign.rewriting.survival import Lost

ENDINGS = (".txt", ".jsonl", ".parquet")
"""The endings of a file of rewrites: the prompts to use, one a line, or tables of all columns."""

Row = dict[str, Any]
"""prompt, thought, rewrite, used, reason, fallback, lost, dropped, tries, rewriter, seed."""


def rewrite_all(
    load: Callable[[], Rewriter],
    prompts: Sequence[str],
    journal: Path,
    *,
    name: str,
    seed: int,
    batch: int = 32,
    progress: Callable[[int], object] | None = None,
    **settings: Any,
) -> list[Row]:
    """Rewrite prompts -> their rows, in order; what is done is in `journal` at once, and not asked again.

    load: makes the rewriter, if anything is missing. name, seed: of the rewriter, on each row. progress: is
    called with how many rows are new or known. settings: of `rewriter.rewrite`. Raises ValueError for a
    journal of another run, and as `rewriter.rewrite_in_parts`.
    """
    tell = progress or (lambda _: None)
    rows = resume(journal, prompts, name=name, seed=seed)
    tell(len(rows))
    rewriter = load() if len(rows) < len(prompts) else None
    for start in range(len(rows), len(prompts), batch):
        assert rewriter is not None, "loaded, since rows are missing"
        for results in rewrite_in_parts(rewriter, prompts[start : start + batch], settings):
            done = [to_row(result, name=name, seed=seed) for result in results]
            jsonl.append(journal, done)
            rows += done
            tell(len(done))
    return rows


def journal_of(output: Path) -> Path:
    """The journal of a run, during it and after it."""
    return output.with_name(output.name + ".journal.jsonl")


def resume(journal: Path, prompts: Sequence[str], *, name: str, seed: int) -> list[Row]:
    """The rows that a journal has, [] without one; what a kill tore off its end is removed.

    Raises ValueError if they are not the first of these prompts by this rewriter and seed.
    """
    rows = [
        {**row, "rewriter": name} if updated_words(str(row.get("rewriter"))) == name else row
        for row in jsonl.read(journal)
    ]
    for place, row in enumerate(rows):
        expected = {
            "prompt": prompts[place] if place < len(prompts) else None,
            "rewriter": name,
            "seed": seed,
        }
        for key, value in expected.items():
            if row.get(key) != value:
                raise ValueError(
                    f"got {key} {quoted(row.get(key))} in {journal} line {place + 1}; expected "
                    f"{quoted(value)}; that is another run: choose another output or remove the journal"
                )
    if rows:
        jsonl.rewrite(journal, rows)
    return rows


def to_row(result: Rewritten, *, name: str, seed: int) -> Row:
    """One result as plain JSON, with the rewriter's name and seed."""
    return {
        "prompt": result.prompt,
        "thought": result.thought,
        "rewrite": result.rewrite,
        "used": result.used,
        "reason": result.reason,
        "fallback": result.fallback,
        "lost": [{"what": loss.what, "evidence": loss.evidence} for loss in result.lost],
        "dropped": list(result.dropped),
        "tries": result.tries,
        "rewriter": name,
        "seed": seed,
    }


def from_row(row: Mapping[str, Any]) -> Rewritten:
    """The result that a row was made of. Raises ValueError for a row that is not what was written."""
    if not _is_whole(row):
        raise ValueError(
            f"got {quoted(row, 200)} as a row of rewrites; expected it as it was written; remove that line "
            "from the file and run the same command again"
        )
    parts = ("prompt", "thought", "rewrite", "used", "reason", "fallback", "tries")
    lost = tuple(Lost(loss["what"], loss["evidence"]) for loss in row["lost"])
    return Rewritten(**{part: row[part] for part in parts}, lost=lost, dropped=tuple(row["dropped"]))


def _is_whole(row: Mapping[str, Any]) -> bool:
    texts, maybe = ("prompt", "rewrite", "used"), ("thought", "reason", "fallback")
    lost, dropped, tries = (row.get(name) for name in ("lost", "dropped", "tries"))
    return (
        all(isinstance(row.get(name), str) for name in texts)
        and all(isinstance(row.get(name, 0), str | None) for name in maybe)
        and isinstance(tries, int)
        and isinstance(dropped, list)
        and all(isinstance(part, str) for part in dropped)
        and isinstance(lost, list)
        and all(isinstance(part, dict) for part in lost)
        and all(isinstance(part.get(key), str) for part in lost for key in ("what", "evidence"))
    )


def write(output: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows to a .jsonl or .parquet table; to .txt only the prompts to use, one a line, in the same order.

    Raises ValueError for another ending.
    """
    ending = check_ending(output)
    if ending == ".jsonl":
        jsonl.rewrite(output, rows)
    elif ending == ".parquet":
        _write_parquet(output, rows)
    else:
        used = (row["rewrite"] if row["used"] == "rewrite" else row["prompt"] for row in rows)
        atomic.write_text(output, "".join(" ".join(text.split()) + "\n" for text in used))


def _write_parquet(output: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.int64()
    # Spelled out, since a column that is empty throughout would else have no type.
    columns = dict.fromkeys(("prompt", "thought", "rewrite", "used", "reason", "fallback"), text)
    columns |= {
        "lost": pa.list_(pa.struct({"what": text, "evidence": text}.items())),
        "dropped": pa.list_(text),
    }
    columns |= {"tries": number, "rewriter": text, "seed": number}
    scratch = output.with_name(f".{output.name}.part")
    pq.write_table(pa.Table.from_pylist(list(rows), schema=pa.schema(columns.items())), scratch)
    scratch.replace(output)


def check_ending(output: Path) -> str:
    """The ending of a file of rewrites. Raises ValueError for one that is none of `ENDINGS`."""
    ending = output.suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"got output {output}; expected one of {', '.join(ENDINGS)}; rename it")
    return ending
