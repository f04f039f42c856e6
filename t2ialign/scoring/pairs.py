"""Gaps of preference pairs: each image scored once with its prompt, into a journal that survives a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rewards import Reward
from rewards.device import default_device
from t2ialign.data.cache.keys import image_key, text_key
from t2ialign.data.images import ImageSource
from t2ialign.data.pairs import PairRecord
from t2ialign.data.skipped import Fault, Skipped
from t2ialign.io import jsonl, naming
from t2ialign.io.messages import listed
from t2ialign.progress import Progress
from t2ialign.scoring.budget import MAX_BATCH_PIXELS
from t2ialign.scoring.decode import Decoder, Images, default_workers, load
from t2ialign.scoring.engine import Engine
from t2ialign.scoring.items import Item

Scores = dict[str, list[float]]
"""Key of an image with its prompt -> its scores, in the order of the rewards."""


@dataclass
class PairScores:
    """Pairs in the order they were read, and the scores of their images."""

    scores: Scores
    keys: list[tuple[str, str]] = field(default_factory=list)
    """The keys of winner and loser."""
    shares: list[float] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    """The fault of each image that could not be read."""

    @property
    def preferences(self) -> NDArray[np.float64]:
        """(N,) the winner's share of the labels, in [1/2, 1]."""
        return np.array(self.shares, np.float64)

    def gaps(self, rewards: int) -> NDArray[np.float64]:
        """(N, rewards): S(win) - S(lose), NaN for a pair with an image that could not be read."""
        nothing = [np.nan] * rewards
        win, lose = (
            np.array([self.scores.get(pair[side], nothing) for pair in self.keys], np.float64)
            for side in (0, 1)
        )
        return win - lose

    def again(self, records: Iterable[PairRecord]) -> Iterator[tuple[int, PairRecord]]:
        """(number, record) of the same pairs. Raises ValueError if they are no longer the same."""
        count = 0
        for count, (keys, record) in enumerate(zip(self.keys, records, strict=False), 1):
            if keys != _keys(record):
                raise _changed(record.name)
            yield count - 1, record
        if count < len(self.keys):
            raise _changed(f"{len(self.keys) - count} pairs at the end")


def score_pairs(
    records: Iterable[PairRecord],
    names: Sequence[str],
    rewards: Callable[[], Mapping[str, Reward]],
    journal: Path,
    *,
    batch_size: int = 64,
    max_batch_pixels: int = MAX_BATCH_PIXELS,
    skipped: Skipped | None = None,
) -> PairScores:
    """Score what `journal` lacks, a batch at a time, and give all pairs with the scores of their images.

    `rewards` loads those called `names`, if there is anything to score. An image that cannot be read or has
    no score stops the run, or with `skipped` is counted there. Raises ValueError for it, for a reward that
    fails on the first images one and all, and for a journal of other rewards.
    """
    result = PairScores(_known(journal, names))
    items = _items(records, result)
    first = next(items, None)
    if first is None:
        return result
    device = default_device()
    engine = Engine(rewards(), device=device, batch_size=batch_size, max_batch_pixels=max_batch_pixels)
    batches, pin = _batches(chain([first], items), batch_size, engine.decoder), device.type == "cuda"
    with Progress(desc="scoring images", unit="image", delay=3) as bar:
        for batch in load(batches, engine.decoder, workers=default_workers(), pin=pin):
            scores, failures = _scored(engine, batch)
            jsonl.append(journal, ({"id": key, "scores": row} for key, row in scores.items()))
            result.scores |= scores
            bad = [item for item in batch.items if item.error is not None]
            broken = [item.error for item in bad if item.error is not None]
            if skipped is None and (failures or broken):
                raise ValueError([*failures.values(), *broken][0])
            if skipped is not None:
                for name, reason in failures.items():
                    skipped.add(Fault("without a score", reason), name.rsplit(" ", 1)[0])
                for item in bad:
                    skipped.add(ValueError(item.error), item.file.rsplit(" ", 1)[0])
            result.unreadable += [*failures.values(), *broken]
            bar.update(len(batch.items))
    return result


def _known(journal: Path, names: Sequence[str]) -> Scores:
    """The scores of an earlier run, without incomplete lines that a kill left."""
    head, rows = {"rewards": list(names)}, jsonl.read(journal)
    if rows and rows[0] != head:
        before = rows[0].get("rewards")
        before = before if isinstance(before, list) else ["something else"]
        raise ValueError(
            f"got rewards {', '.join(names)} for {journal}, which holds scores of {listed(before)}; "
            f"expected the same in the same order; choose another {naming.name('output')}"
        )
    journal.parent.mkdir(parents=True, exist_ok=True)
    jsonl.rewrite(journal, rows or [head])
    return {row["id"]: row["scores"] for row in rows[1:] if _is_whole(row, names)}


def _is_whole(row: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether it has an id and a number of each reward; a damaged row is scored again."""
    scores = row.get("scores")
    numbers = isinstance(scores, list) and all(isinstance(score, float | int) for score in scores)
    return isinstance(row.get("id"), str) and numbers and len(scores or ()) == len(names)


def _items(records: Iterable[PairRecord], result: PairScores) -> Iterator[Item]:
    """Images that have no score, each once for a prompt; the pairs are noted on the way."""
    seen = set(result.scores)
    for record in records:
        keys = _keys(record)
        result.keys.append(keys)
        result.shares.append(record.preference)
        for key, side in zip(keys, ("win", "lose"), strict=True):
            if key not in seen:
                seen.add(key)
                name = f"{record.name} {side}"
                yield Item(len(seen), 0, name, record.prompt, getattr(record, side), stamp=key)


def _batches(items: Iterator[Item], size: int, decoder: Decoder) -> Iterator[list[Item]]:
    while batch := list(islice(items, decoder.room(size))):
        yield batch


def _scored(engine: Engine, batch: Images) -> tuple[Scores, dict[str, str]]:
    """Scores of the batch's good images, and of the others, by name, why there are none."""
    columns, wrong = engine.launch(batch)
    rows = torch.stack(list(columns.values()), dim=1).tolist() if columns else []
    scores, failures = Scores(), dict[str, str]()
    for rank, (place, row) in enumerate(zip(batch.good, rows, strict=True)):
        item = batch.items[place]
        if np.isfinite(row).all():
            scores[item.stamp] = row
            continue
        name, value = next((n, v) for n, v in zip(columns, row, strict=True) if not np.isfinite(v))
        reason = wrong.get((name, rank), f"the score is {value}")
        failures[item.file] = (
            f"{item.file}: got no score of {name} ({reason}); expected a number; drop the row or choose "
            "another reward"
        )
    return scores, failures


def _keys(record: PairRecord) -> tuple[str, str]:
    return _key(record.win, record.prompt), _key(record.lose, record.prompt)


def _key(image: ImageSource, prompt: str) -> str:
    """32 hex digits that stand for an image with a prompt."""
    return "".join(f"{number % 2**64:016x}" for number in (image_key(image), text_key(prompt)))


def _changed(what: str) -> ValueError:
    return ValueError(
        f"got other pairs than were scored ({what}); expected a source that stays as it is; run the same "
        f"again with {naming.resuming()}"
    )
