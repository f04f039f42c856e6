"""The folder of a run that renders: whose it is, what of its plan is missing, and how it is left."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from rewards.renamed import same, updated_words
from t2ialign.data.images import open_rgb
from t2ialign.io import jsonl, locks, manifest, naming, png_text
from t2ialign.io.paths import check_place
from t2ialign.models import options
from t2ialign.tasks.samples import grid_columns, shown_on_grid
from t2ialign.web.sheet import contact_sheet

GRID = "grid.png"
KINDS_OF_RUN = ("rewriter", "best_of", *options.NAMES)
"""Keys of a row that only some runs have."""

Row = dict[str, Any]

log = logging.getLogger(__name__)


def check_free(output: Path, *, resume: bool) -> None:
    """Raises ValueError for a folder that is a file, cannot be made, or is in use without `resume`."""
    check_place(output, naming.name("output"))
    if not resume:
        advice = f"continue its run with {naming.resuming()}, or "
        locks.check_free(output, naming.prefix("output"), advice=advice)


def claim(output: Path, first: Row, *, resume: bool) -> None:
    """Make the folder of a run whose first row is this.

    Raises ValueError like `check_free`, or for a run of another kind.
    """
    check_free(output, resume=resume)
    output.mkdir(parents=True, exist_ok=True)
    file = output / manifest.NAME
    for row in jsonl.read(file)[:1]:
        kind = {key: first[key] for key in KINDS_OF_RUN if key in first}
        _check_same(row, {"file": row.get("file"), **kind}, file)


def pending(output: Path, rows: Sequence[Row]) -> list[Row]:
    """The rows whose image is not there yet or is damaged; mends a manifest that a kill has torn.

    Raises ValueError if the folder holds a run with other settings.
    """
    file, wanted = output / manifest.NAME, {row["file"]: row for row in rows}
    there = {row.get("file"): row for row in jsonl.read(file)}
    for name, row in there.items():
        _check_same(row, wanted.get(name), file)
    intact = {name: row for name, row in there.items() if _is_intact(output / str(name))}
    if file.exists():
        jsonl.rewrite(file, intact.values())
    return [row for row in rows if row["file"] not in intact]


def finish(output: Path, rows: Sequence[Row]) -> None:
    """Put the manifest in the order of the plan, which a resumed run may have left, and draw the grid."""
    jsonl.rewrite(output / manifest.NAME, rows)
    columns = grid_columns(rows)
    shown = rows[: shown_on_grid(rows, columns)]
    images = [open_rgb(output / row["file"]) for row in shown]
    text = png_text.grid_text(shown, columns, images[0].size)
    png_text.save(contact_sheet(images, columns), output / GRID, text)


def _is_intact(file: Path) -> bool:
    """Whether the PNG is there and its checksums hold, which is known without decoding it."""
    if not file.is_file():
        return False
    try:
        with Image.open(file, formats=["PNG"]) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's for broken PNG files
        log.warning("%s is damaged (%s), so it is rendered anew", file, error)
        return False
    return True


def _check_same(there: Row, wanted: Row | None, file: Path) -> None:
    if wanted is None:
        raise ValueError(
            f"got {there.get('file')} in {file}; expected only images of this run; choose "
            f"{naming.name('output')}"
        )
    for key in dict.fromkeys([*wanted, *KINDS_OF_RUN]):
        value, earlier = wanted.get(key), there.get(key)
        if key == "rewriter" and isinstance(earlier, str):
            earlier = updated_words(earlier)
        if not same(earlier, value):
            raise ValueError(
                f"got {key}={there.get(key)!r} for {wanted['file']} in {file}; expected {value!r}, as asked "
                f"now; repeat the settings of that run, or choose another {naming.name('output')}"
            )
