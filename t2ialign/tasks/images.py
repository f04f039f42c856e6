"""Images to score, as users hand them over: places on disk, lists in memory, tables of pandas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.tasks.arguments import column_of, is_frame
from t2ialign.tasks.samples import Samples

if TYPE_CHECKING:
    from t2ialign.data.images import ImageSource
    from t2ialign.scoring.items import Item, Source


@dataclass(frozen=True, kw_only=True)
class Place:
    """Images and what says their prompts, before anything is opened.

    images: a folder, a table, shards, a pattern or a name on the Hub; or images in memory as
    `rewards.inputs.Images` has them, `Samples`, or a DataFrame. prompts: a table or one prompt for all; for
    images in memory also one for each.
    """

    images: Any
    prompts: Any = None
    prompts_from_names: bool = False
    image_column: str | None = None
    prompt_column: str | None = None
    split: str = "train"

    @property
    def on_disk(self) -> bool:
        """Whether the images are named by one text, and not handed over."""
        return isinstance(self.images, str | PathLike)

    def open(self) -> Source:
        """The images with their prompts. Raises ValueError where there is no such thing."""
        return self._named() if self.on_disk else self._in_memory()

    def _named(self) -> Source:
        from t2ialign.scoring.prompts import parse_prompts
        from t2ialign.scoring.rows import Columns
        from t2ialign.scoring.sources import open_source

        if not isinstance(self.prompts, str | PathLike | None):
            raise ValueError(
                f"got several prompts for {self.images}; expected a table of files and prompts, or one "
                "prompt for all; write the table, or pass the images as a list"
            )
        text = None if self.prompts is None else str(self.prompts)
        prompts = parse_prompts(text, names=self.prompts_from_names, text_column=self.prompt_column)
        return open_source(
            str(self.images), prompts, Columns(self.image_column, self.prompt_column, self.split)
        )

    def _in_memory(self) -> Source:
        from t2ialign.scoring.items import Source

        if self.prompts_from_names or self.split != "train":
            raise ValueError(
                "got prompts_from_names or split for images in memory; expected them for images on disk; "
                "leave them out"
            )
        images, prompts = self._table() if is_frame(self.images) else self._list()
        items = [_item(row, *pair) for row, pair in enumerate(zip(images, prompts, strict=True))]
        return Source("images in memory", ["memory"], lambda _: iter(items), len(items))

    def _table(self) -> tuple[list[Any], list[str | None]]:
        """The columns of images and prompts of a DataFrame."""
        from t2ialign.data.files.tables import first_of
        from t2ialign.data.prompts import PROMPT_COLUMNS, prompt_or_none
        from t2ialign.scoring.rows import IMAGE_COLUMNS

        columns = list(self.images.columns)
        image = self.image_column or first_of(columns, IMAGE_COLUMNS)
        prompt = self.prompt_column or first_of(columns, PROMPT_COLUMNS)
        for name in (image, prompt if self.prompt_column else image):
            if name not in columns:
                raise ValueError(
                    f"got a table with the columns {', '.join(map(str, columns))}; expected one of images, "
                    "called image or file; name it by image_column, and prompts by prompt_column"
                )
        images = list(self.images[image])
        if self.prompts is not None:
            return images, self._texts(len(images))
        texts = [None] * len(images) if prompt is None else list(self.images[prompt])
        return images, [prompt_or_none(f"row {row}", text) for row, text in enumerate(texts)]

    def _list(self) -> tuple[list[Any], list[str | None]]:
        from rewards.inputs import listed

        if isinstance(self.images, Samples):
            images = list[Any](self.images.sources)
            return images, list(self.images.prompts) if self.prompts is None else self._texts(len(images))
        images = listed(self.images)
        return images, self._texts(len(images))

    def _texts(self, count: int) -> list[str | None]:
        """The prompt of each of so many images. Raises ValueError for another number of prompts."""
        from rewards.inputs import matched

        if self.prompts is None:
            return [None] * count
        prompts: str | Sequence[str] = (
            self.prompts if isinstance(self.prompts, str) else list(column_of(self.prompts))
        )
        return list(matched(prompts, count))


def _item(row: int, image: Any, prompt: str | None) -> Item:
    from t2ialign.scoring.items import Item, stamp

    source = _source(row, image)
    if isinstance(source, Path):
        return Item(0, row, str(source), prompt, source, stamp(source), repeat=row)
    return Item(0, row, f"image {row}", prompt, source)


def _source(row: int, image: Any) -> ImageSource:
    """What the decoder of a run opens. Raises ValueError, naming the image, for what is none."""
    import numpy as np
    from torch import Tensor

    from rewards import inputs
    from t2ialign.data.images import image_of

    if isinstance(image, np.ndarray | Tensor):
        (item,) = inputs.read([image], first=row, count=row + 2)
        if not isinstance(item, Tensor):
            return item
        from t2ialign.tasks.rendering import to_pil

        return to_pil(item.detach().cpu().float())
    return image_of(f"image {row}", image, Path())
