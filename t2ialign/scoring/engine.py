"""From items to scores: batches, one text encoding a prompt, several rewards at once, errors row by row."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from rewards import Prepared, Reward, TwoTower, score_all
from rewards.preprocess import Geometry
from rewards.vlm.base import UnreadableAnswer
from t2ialign.io import naming
from t2ialign.io.messages import one_line
from t2ialign.scoring.budget import MAX_BATCH_PIXELS
from t2ialign.scoring.decode import Decoder, Images, load
from t2ialign.scoring.items import Item
from t2ialign.scoring.scorable import NO_PROMPT, check_some_prompt, needing, within_length, without_prompt

WINDOW = 256
"""Rows whose prompts are encoded together, before their images are scored."""
PATIENCE = 16
"""Images that a reward may fail on before its first score."""

Row = dict[str, Any]
"""{"id", "shard", "row", "file", "prompt", "scores": {name: number}, "error": text or None}."""
Wrong = dict[tuple[str, int], str]
"""(reward, place among the good images) -> why there is no score."""


@dataclass(frozen=True)
class Inputs:
    """What rewards are given of the good images at `places`: B prompts, and tensors or squares of B."""

    places: Sequence[int]
    prompts: list[str]
    images: Tensor | None = None
    squares: Mapping[Geometry, Tensor] = field(default_factory=dict)

    def one(self, row: int) -> Inputs:
        """One row of it."""
        at = slice(row, row + 1)
        image = None if self.images is None else self.images[at]
        squares = {geometry: pixels[at] for geometry, pixels in self.squares.items()}
        return Inputs(self.places[at], self.prompts[at], image, squares)


class Engine:
    """Scores items with several rewards; a row that cannot be scored gets an error text, never a number."""

    def __init__(
        self,
        rewards: Mapping[str, Reward],
        *,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
        workers: int = 0,
        precision: str = "fp32",
        proven: bool = False,
        max_batch_pixels: int = MAX_BATCH_PIXELS,
    ) -> None:
        """`workers` processes decode (0: this one). `precision` "bf16" runs under autocast.

        A reward without a `geometry` reads every pixel: with one of those a batch has at most
        `max_batch_pixels` pixels, or one image.
        Unless `proven` (an earlier run gave scores), a reward that fails on the first `PATIENCE` images is
        taken to be set up wrongly, and raises.
        """
        self.device, self.batch_size, self.workers = torch.device(device), batch_size, workers
        self.exact = torch.float32 if self.device.type == "mps" else torch.float64  # there is no fp64 on mps
        self.rewards = {name: reward.to(self.device).eval() for name, reward in rewards.items()}
        self.fixed = {name: r for name, r in self.rewards.items() if isinstance(r, Prepared)}
        self.needing = needing(self.rewards)
        geometries = dict.fromkeys(reward.geometry for reward in self.fixed.values())
        raw = len(self.fixed) < len(self.rewards)
        self.decoder = Decoder(list(geometries), raw=raw, max_pixels=max_batch_pixels)
        self.towers = {
            id(r.tower): r.tower for r in self.rewards.values() if isinstance(r, TwoTower) and r.needs_text
        }
        self.worked = set(self.rewards) if proven else set[str]()
        self.failed = Counter[str]()
        self.autocast = precision == "bf16"
        self.texts: deque[list[str]] = deque()

    def score(self, items: Iterable[Item]) -> Iterator[list[Row]]:
        """Items -> rows in the same order, batch by batch; a batch is read back while the next one runs.

        Raises ValueError if the source does, if none of the first rows has a prompt and one is needed, if a
        reward fails on image after image from the start, and if memory is short.
        """
        pin = self.device.type == "cuda"
        waiting: tuple[Images, dict[str, Tensor], Wrong] | None = None
        for batch in load(self._batches(items), self.decoder, workers=self.workers, pin=pin):
            self._encode_texts()
            launched = (batch, *self.launch(batch))
            if waiting is not None:
                yield rows_of(*waiting)
            waiting = launched
        if waiting is not None:
            yield rows_of(*waiting)

    def launch(self, batch: Images) -> tuple[dict[str, Tensor], Wrong]:
        """{reward: (G,) on the device, NaN where it failed} of the batch's G good images, and why.

        The batch gives up its images, since nothing else reads them.
        """
        prompts = [batch.items[place].prompt for place in batch.good]
        scores = {name: self._nothing(len(prompts)) for name in self.rewards if prompts}
        wrong: Wrong = {}
        try:
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                for names, places in self._usable(prompts, wrong):
                    texts = [prompts[place] or "" for place in places]
                    for some, given in self._inputs(batch, names, places, texts):
                        scored = self._scored({name: self.rewards[name] for name in some}, given, wrong)
                        at = torch.as_tensor(given.places, device=self.device)
                        for name, values in scored.items():
                            scores[name][at] = values
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"got too little memory for batches of {self.batch_size} ({str(error).splitlines()[0]}); "
                f"expected more; lower {naming.name('batch_size')} or {naming.name('max_batch_pixels')} and "
                f"add {naming.resuming()}"
            ) from error
        batch.raw, batch.prepared = [], {}
        return scores, wrong

    def _usable(
        self, prompts: Sequence[str | None], wrong: Wrong
    ) -> Iterator[tuple[list[str], Sequence[int]]]:
        """(rewards, places they can score): all of them where there is a prompt, image scorers elsewhere."""
        prompted = [place for place, prompt in enumerate(prompts) if prompt]
        bare = [place for place, prompt in enumerate(prompts) if not prompt]
        wrong |= {(name, place): NO_PROMPT for name in self.needing for place in bare}
        if prompted:
            yield list(self.rewards), prompted
        if bare and len(self.needing) < len(self.rewards):
            yield [name for name in self.rewards if name not in self.needing], bare

    def _inputs(
        self, batch: Images, names: Sequence[str], places: Sequence[int], texts: list[str]
    ) -> Iterator[tuple[list[str], Inputs]]:
        """(rewards, what they are given): those of squares together, the others one by one and by size."""
        if fixed := [name for name in names if name in self.fixed]:
            wanted = {self.fixed[name].geometry for name in fixed}
            squares = {g: x for g, x in batch.prepared.items() if g in wanted}
            if len(places) < len(batch.good):
                squares = {g: x[list(places)] for g, x in squares.items()}
            squares = {g: x.to(self.device, non_blocking=True) for g, x in squares.items()}
            yield fixed, Inputs(places, texts, None, squares)
        text = dict(zip(places, texts, strict=True))
        free = [name for name in names if name not in self.fixed]
        for alike in _sizes(batch.raw, places) if free else ():
            images = floats([batch.raw[place] for place in alike], self.device)
            for place in alike:  # what is floats now is not kept as levels too
                batch.raw[place] = batch.raw[place].new_empty(0)
            given = Inputs(alike, [text[place] for place in alike], images)
            yield from (([name], given) for name in free)

    def _scored(self, rewards: Mapping[str, Reward], given: Inputs, wrong: Wrong) -> dict[str, Tensor]:
        """Scores of all rewards together; if that fails, of each alone, then row by row, to see which do."""
        try:
            scores = score_all(rewards, given.images, given.prompts, given.squares)
            self.worked |= scores.keys()
            return {name: values.to(self.device, self.exact) for name, values in scores.items()}
        except Exception as error:  # code of users fails in any way, and costs no more than its row
            if isinstance(error, torch.OutOfMemoryError):
                raise
            if len(rewards) > 1:
                each = (self._scored({name: reward}, given, wrong) for name, reward in rewards.items())
                return {name: values for scores in each for name, values in scores.items()}
            ((name, reward),) = rewards.items()
            if (
                isinstance(error, UnreadableAnswer) and error.scorer is reward
            ):  # the others are not asked twice
                if len(error.rows) < len(given.places):
                    self.worked.add(name)
                for row, reason in error.reasons.items():
                    self._note(name, given.places[row], reason, wrong, error)
                return {name: error.scores.to(self.exact)}
            if len(given.places) > 1:
                rows = [
                    self._scored(rewards, given.one(row), wrong)[name] for row in range(len(given.places))
                ]
                return {name: torch.cat(rows)}
            self._note(name, given.places[0], _reason(error), wrong, error)
            return {name: self._nothing(1)}

    def _note(self, name: str, place: int, reason: str, wrong: Wrong, error: Exception) -> None:
        """Keep why a reward failed on an image. Raises ValueError if it has failed on all of many so far."""
        wrong[name, place] = reason
        self.failed[name] += 1
        if name not in self.worked and self.failed[name] >= PATIENCE:
            if isinstance(error, ValueError):
                raise error
            raise ValueError(f"got {reason} from {name}; expected scores; correct that reward") from error

    def _nothing(self, rows: int) -> Tensor:
        return torch.full((rows,), math.nan, dtype=self.exact, device=self.device)

    def _batches(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        stream, size = iter(items), self.batch_size
        while window := list(islice(stream, max(1, WINDOW // size) * size)):
            if self.needing and not self.worked:
                check_some_prompt(window, self.needing)
            window = [within_length(item) for item in window]
            if len(self.needing) == len(self.rewards):
                window = [without_prompt(item) for item in window]
            self.texts.append([item.prompt for item in window if item.prompt and item.error is None])
            while window:
                room = self.decoder.room(size)
                yield window[:room]
                window = window[room:]

    @torch.no_grad()
    def _encode_texts(self) -> None:
        """Prompts of windows that have been drawn into their towers' memory, in one go a window.

        Not when they are drawn: the first images are decoded meanwhile.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            while self.texts:
                texts = list(dict.fromkeys(self.texts.popleft()))
                for tower in self.towers.values() if texts else ():
                    tower.texts(texts)


def _reason(error: Exception) -> str:
    """What it says, with its kind unless it is one of our messages."""
    text = one_line(str(error))
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__} ({text})"


def floats(arrays: Sequence[Tensor], device: torch.device | str) -> Tensor:
    """B images (H, W, 3) of one size in uint8 -> (B, 3, H, W) fp32 in [0, 1], made once and in place."""
    stacked = arrays[0][None] if len(arrays) == 1 else torch.stack(list(arrays))
    images = stacked.to(device).permute(0, 3, 1, 2)
    return images.to(torch.float32, memory_format=torch.contiguous_format, copy=True).div_(255)


def _sizes(images: Sequence[Tensor], places: Iterable[int]) -> list[list[int]]:
    """Places of images of one size together, in order of the first of each."""
    groups: dict[torch.Size, list[int]] = {}
    for place in places:
        groups.setdefault(images[place].shape, []).append(place)
    return list(groups.values())


def rows_of(batch: Images, scores: Mapping[str, Tensor], wrong: Wrong) -> list[Row]:
    """A batch and what `Engine.launch` made of it -> its rows, in order; waits for the device."""
    columns = {name: values.tolist() for name, values in scores.items()}
    rank = {place: index for index, place in enumerate(batch.good)}
    rows = []
    for place, item in enumerate(batch.items):
        values: dict[str, float] = {}
        reasons: dict[str, list[str]] = {}
        for name, column in columns.items() if place in rank else ():
            value = column[rank[place]]
            if math.isfinite(value):
                values[name] = value
            else:
                reasons.setdefault(wrong.get((name, rank[place]), f"the score is {value}"), []).append(name)
        errors = [item.error] if item.error is not None else []
        errors += [f"{item.file}: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
        rows.append(
            {
                "id": item.identity,
                **{"shard": item.shard, "row": item.row, "file": item.file, "prompt": item.prompt},
                **{"scores": values, "error": "; ".join(errors) or None},
            }
        )
    return rows
