"""Several rewards over many images, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from rewards import inputs
from rewards.base import Reward
from rewards.device import default_device
from rewards.inputs import Images
from rewards.loading import load_all
from rewards.together import score_items

BATCH = 16
"""Images that are in memory at a time, unless their pixels say fewer."""
MAX_BATCH_PIXELS = 1 << 26
"""64 images of 1024x1024; a pixel takes 3 bytes as it is read, and 12 for a reward that sees all of them."""
WIDTH = 32
"""Characters of an image's name and of a prompt that a printed table shows."""
SHOWN = 20
"""Rows that a printed table shows."""


class Scores(Mapping[str, Tensor]):
    """A table of scores: `scores["pickscore"]` is a column (B,), `scores.rows()` a list of dicts; it prints.

    `pandas.DataFrame(scores.rows())` makes a data frame of it.
    """

    def __init__(self, images: Sequence[str], prompts: Sequence[str], columns: Mapping[str, Tensor]) -> None:
        self.images, self.prompts, self.columns = list(images), list(prompts), dict(columns)

    def __getitem__(self, name: str) -> Tensor:
        """The scores (B,) of one reward, in the order of the images."""
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def rows(self) -> list[dict[str, str | float]]:
        """One dict an image: "image" (its path or number), "prompt", and each reward's score by its name."""
        columns = {name: column.tolist() for name, column in self.columns.items()}
        return [
            {"image": image, "prompt": prompt, **{name: column[row] for name, column in columns.items()}}
            for row, (image, prompt) in enumerate(zip(self.images, self.prompts, strict=True))
        ]

    def __repr__(self) -> str:
        texts = ["image", "prompt"] if any(self.prompts) else ["image"]
        head = [*texts, *self.columns]
        cells = [[_cell(name, row[name]) for name in head] for row in self.rows()[:SHOWN]]
        widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if number < len(texts) else cell.rjust(width)
                for number, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in (head, *cells)
        ]
        left = len(self.images) - len(cells)
        return "\n".join([*lines, *([f"... and {left} more"] if left else [])])


@torch.no_grad()
def score(
    rewards: str | Iterable[str] | Mapping[str, Reward],
    images: Images,
    prompts: str | Sequence[str] | None = None,
    *,
    max_batch_pixels: int = MAX_BATCH_PIXELS,
) -> Scores:
    """Score images, see `inputs.Images`, with rewards, by names or as `load_all` gives them -> a table.

    Rewards that are named are loaded for this call, onto a GPU if there is one. Each image is read once,
    upright and on white, and prepared as each reward's authors do it. prompts: one for each image or one for
    all; rewards that read none need none. Images are read until they have `max_batch_pixels`, and a larger
    one is scored alone. Raises ValueError like `load`, for what is no reward, for an image
    that cannot be read, naming it, and for a prompt that is missing or empty.
    """
    given = inputs.listed(images)
    texts = inputs.matched("" if prompts is None else prompts, len(given))
    loaded = rewards if isinstance(rewards, Mapping) else _loaded(rewards)
    for name, reward in loaded.items():
        if not isinstance(reward, Reward):
            kind = type(reward).__name__
            raise ValueError(
                f"got {kind} as {name}; expected a rewards.Reward; pass names, or load_all(names)"
            )
        if reward.needs_text and "" in (text.strip() for text in texts):
            what = "no prompts" if prompts is None else "an empty prompt"
            raise ValueError(f"got {what} for {name}, which reads the prompt; expected a text; pass prompts")
    parts: list[dict[str, Tensor]] = []
    start = 0
    for items in _batches(given, max_batch_pixels):
        parts.append(score_items(loaded, items, texts[start : start + len(items)]))
        start += len(items)
    columns = {name: torch.cat([part[name].float().cpu() for part in parts]) for name in loaded}
    names = [inputs.path_of(image) or f"image {number}" for number, image in enumerate(given)]
    return Scores(names, texts, columns)


def _batches(given: Sequence[inputs.ImageLike], most: int) -> Iterator[list[inputs.Item]]:
    """Images as they were read, in order: at most `BATCH`, and of at most so many pixels, or one."""
    batch: list[inputs.Item] = []
    pixels = 0
    for number, image in enumerate(given):
        (item,) = inputs.read([image], first=number, count=len(given))
        area = item.shape[-1] * item.shape[-2] if isinstance(item, Tensor) else item.width * item.height
        if batch and (len(batch) == BATCH or pixels + area > most):
            yield batch
            batch, pixels = [], 0
        batch.append(item)
        pixels += area
    yield batch


def _loaded(names: str | Iterable[str]) -> dict[str, Reward]:
    wanted = [names] if isinstance(names, str) else list(names)
    if not wanted or not all(isinstance(name, str) for name in wanted):
        kinds = ", ".join(type(name).__name__ for name in wanted) or "none"
        raise ValueError(f"got {kinds} as rewards; expected names, such as 'aesthetic', or load_all(names)")
    loaded = load_all(wanted)
    return {name: reward.to(default_device()) for name, reward in loaded.items()}


def _cell(column: str, value: str | float) -> str:
    """A number of four digits; a text cut to `WIDTH`, a path at its beginning."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(value.split())
    if len(text) <= WIDTH:
        return text
    return f"...{text[3 - WIDTH :]}" if column == "image" else f"{text[: WIDTH - 3]}..."
