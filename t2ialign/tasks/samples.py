"""The result of sampling: images in order, with the prompts and seeds that made them."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from PIL import Image

from t2ialign.data.images import open_rgb
from t2ialign.io.inside import inside
from t2ialign.web.sheet import contact_sheet

GRID_IMAGES = 64
"""A contact sheet shows at most this many images, the first ones."""

Row = dict[str, Any]


@dataclass(frozen=True, repr=False)
class Samples(Sequence[Image.Image]):
    """Rendered images: `samples[0]` is a PIL image, `samples.prompts` and `samples.seeds` go with them."""

    rows: list[Row]
    """One for each image, as the manifest has it: file, prompt, seed, and every setting."""
    folder: Path | None = None
    """Where the images are; None where they are in memory."""
    new: int = 0
    """The number of images that this run rendered, rather than found in the folder."""
    notes: list[str] = field(default_factory=list)
    """Lines on the outcome of rewriting and judging."""
    errors: list[str] = field(default_factory=list)
    """Why candidates could not be judged, one line each."""
    images: Mapping[str, Image.Image] = field(default_factory=dict)
    """The images in memory by their file, where there is no folder."""

    @property
    def prompts(self) -> list[str]:
        """The prompt of each image, as the user gave it."""
        return [row["prompt"] for row in self.rows]

    @property
    def seeds(self) -> list[int]:
        """The seed of each image."""
        return [row["seed"] for row in self.rows]

    @property
    def sources(self) -> list[Path | Image.Image]:
        """The file of each image, or the image where it is in memory."""
        if self.folder is None:
            return list(self)
        return [inside(self.folder, row["file"]) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Image.Image: ...

    @overload
    def __getitem__(self, place: slice) -> list[Image.Image]: ...

    def __getitem__(self, place: int | slice) -> Image.Image | list[Image.Image]:
        """One image, or a list of some."""
        if isinstance(place, slice):
            return [self._open(row) for row in self.rows[place]]
        return self._open(self.rows[place])

    def __repr__(self) -> str:
        """How many images of how many prompts, and where they are."""
        where = "in memory" if self.folder is None else f"in {self.folder}"
        return f"<Samples: {len(self)} images of {len(set(self.prompts))} prompts {where}>"

    def _repr_png_(self) -> bytes:
        """The contact sheet, which a notebook shows for the samples."""
        sheet = io.BytesIO()
        self.grid().save(sheet, "PNG")
        return sheet.getvalue()

    def grid(self, columns: int | None = None) -> Image.Image:
        """The first images on one contact sheet; `columns`: those of one prompt in a row, else a square."""
        count = grid_columns(self.rows) if columns is None else columns
        return contact_sheet(self[: shown_on_grid(self.rows, count)], count)

    def _open(self, row: Row) -> Image.Image:
        if self.folder is None:
            return self.images[row["file"]]
        return open_rgb(inside(self.folder, row["file"]))


def grid_columns(rows: Sequence[Row]) -> int:
    """How many images a contact sheet has in a row: those of the first prompt, or as many as a square has."""
    per_prompt = sum(row["prompt"] == rows[0]["prompt"] for row in rows)
    return per_prompt if 1 < per_prompt <= 12 else math.ceil(math.sqrt(min(len(rows), GRID_IMAGES)))


def shown_on_grid(rows: Sequence[Row], columns: int) -> int:
    """How many images a contact sheet shows: whole rows of the first 64."""
    return min(len(rows), max(columns, GRID_IMAGES // columns * columns))
