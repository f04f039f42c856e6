"""Comparisons: each image prepared once, read back as it was, whatever interrupts the building."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from t2ialign.data.cache.comparisons import ComparisonCache, build_comparisons
from t2ialign.data.pairs import PairRecord
from t2ialign.data.skipped import Skipped


def make_image(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


class Prepare:
    """Counts what it prepares."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, image: Image.Image) -> Tensor:
        self.count += 1
        return pixels(image)


def records(count: int = 12) -> list[PairRecord]:
    """A chain: image i against image i + 1, so that most serve twice; two prompts of unequal size."""
    return [
        PairRecord(
            "rare" if i % 4 == 0 else "common",
            make_image(i),
            make_image(i + 1),
            name=f"row {i}",
            preference=0.5 + 0.5 * (i % 2),
        )
        for i in range(count)
    ]


def test_every_image_is_prepared_once_and_read_back_as_it_was(tmp_path: Path) -> None:
    prepare, given = Prepare(), records()
    cache = build_comparisons(tmp_path / "c", given, prepare, shard_size=4)
    assert prepare.count == 13 and len(cache) == 12
    batch = cache.batch([3, 0, 7])
    for row, i in enumerate((3, 0, 7)):
        assert torch.equal(batch.win[row], pixels(make_image(i)))
        assert torch.equal(batch.lose[row], pixels(make_image(i + 1)))
        assert batch.prompts[row] == given[i].prompt == cache.prompt(i)
    assert batch.preference.tolist() == [1.0, 0.5, 1.0] and batch.weight.tolist() == [1.0] * 3
    again = build_comparisons(tmp_path / "c", given, prepare, shard_size=4)
    assert prepare.count == 13 and torch.equal(again.batch(range(12)).win, cache.batch(range(12)).win)


def test_an_interrupted_build_goes_on_with_what_it_has(tmp_path: Path) -> None:
    def broken() -> Iterator[PairRecord]:
        yield from records()[:9]
        raise KeyboardInterrupt

    prepare = Prepare()
    with pytest.raises(KeyboardInterrupt):
        build_comparisons(tmp_path / "c", broken(), prepare, shard_size=2)
    with pytest.raises(ValueError, match="no finished cache"):
        ComparisonCache(tmp_path / "c")
    stored = sum(file.stat().st_size > 0 for file in (tmp_path / "c").glob("pictures-*"))
    cache = build_comparisons(tmp_path / "c", records(), prepare, shard_size=2)
    whole = build_comparisons(tmp_path / "whole", records(), Prepare())
    ours, theirs = (c.batch(range(12)) for c in (cache, whole))
    assert torch.equal(ours.win, theirs.win) and torch.equal(ours.lose, theirs.lose)
    assert ours.prompts == theirs.prompts and torch.equal(ours.preference, theirs.preference)
    assert stored == 0 or prepare.count < 10 + 13


def test_an_unreadable_image_stops_or_is_left_out_with_its_pairs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = records(4)
    given[2] = PairRecord("common", b"no image", make_image(3), name="row 2")
    with pytest.raises(ValueError, match=r"row 2 win: got bytes of no known image format"):
        build_comparisons(tmp_path / "a", given, Prepare())
    with caplog.at_level(logging.WARNING):
        cache = build_comparisons(tmp_path / "b", given, Prepare(), skipped=Skipped("set"))
    assert len(cache) == 3
    message = (
        "set: 1 rows left out: 1 with an image that cannot be read (first: row 2 win: got bytes of no known"
    )
    assert message in caplog.text
    assert torch.equal(cache.batch([2]).win[0], pixels(make_image(3)))
    with pytest.raises(ValueError, match="no readable pairs"):
        build_comparisons(tmp_path / "c", given[2:3], Prepare(), skipped=Skipped("set"))


def test_a_cache_of_something_else_is_refused(tmp_path: Path) -> None:
    build_comparisons(tmp_path / "c", records(2), Prepare(), fingerprint={"squares": 8})
    with pytest.raises(ValueError, match="made with squares=8; expected squares=9"):
        build_comparisons(tmp_path / "c", records(2), Prepare(), fingerprint={"squares": 9})
    next((tmp_path / "c").glob("pictures-*")).unlink()
    with pytest.raises(ValueError, match="missing or cut"):
        ComparisonCache(tmp_path / "c")


def test_even_weights_give_every_prompt_one_voice_and_keep_the_mean(tmp_path: Path) -> None:
    cache = build_comparisons(tmp_path / "c", records(), Prepare()).even()
    batch = cache.batch(range(12))
    totals = {
        prompt: sum(w for p, w in zip(batch.prompts, batch.weight.tolist(), strict=True) if p == prompt)
        for prompt in ("rare", "common")
    }
    assert totals["rare"] == pytest.approx(totals["common"]) == pytest.approx(6)
    assert batch.weight.mean().item() == pytest.approx(1)


def test_held_out_prompts_share_no_pair_and_orders_are_shuffles(tmp_path: Path) -> None:
    given = [PairRecord(f"p{i % 5}", make_image(i), make_image(i + 50)) for i in range(20)]
    cache = build_comparisons(tmp_path / "c", given, Prepare())
    train, held = cache.split(0.4, 0)
    sides = [{part.prompt(i) for i in range(len(part))} for part in (train, held)]
    assert len(train) + len(held) == 20 and len(sides[1]) == 2 and not sides[0] & sides[1]
    first, second = train.order(0, 0), train.order(0, 1)
    assert sorted(first) == sorted(second) == list(range(len(train))) and list(first) != list(second)
    assert np.array_equal(first, train.order(0, 0))
