"""Scoring a manifest: a broken image is an error and never a number; a killed run scores what is missing."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from rewards import Reward
from t2ialign.evaluation.manifest_scores import Score, read_image, score_manifest
from t2ialign.io import jsonl, manifest

COLOURS = [(255, 0, 0), (0, 0, 0), (51, 0, 0), (102, 9, 9)]
REDS = [1.0, 0.0, 0.2, 0.4]


class Redness(Reward):
    """Mean red; remembers the batches that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[torch.Size] = []

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        self.batches.append(images.shape)
        return images[:, 0].mean((1, 2))


class Undefined(Reward):
    """0 / 0 for a black image."""

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        red = images[:, 0].mean((1, 2))
        return red / red


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four plain images: two of 8x8, then two of 8x6."""
    rows = []
    for i, colour in enumerate(COLOURS):
        Image.new("RGB", (8, 8 if i < 2 else 6), colour).save(tmp_path / f"{i}.png")
        rows.append({"file": f"{i}.png", "prompt": f"p{i // 2}", "seed": i})
    jsonl.append(tmp_path / manifest.NAME, rows)
    return tmp_path


def scores(folder: Path, reward: Reward, name: str = "red", batch_size: int = 64) -> list[Score]:
    return score_manifest(reward, name, manifest.read(folder), folder / "scores.jsonl", batch_size=batch_size)


def test_every_row_gets_its_own_score_in_order_and_sizes_are_not_mixed(folder: Path) -> None:
    reward = Redness()
    found = scores(folder, reward)
    assert [row["score"] for row in found] == pytest.approx(REDS)
    assert [tuple(shape) for shape in reward.batches] == [(2, 3, 8, 8), (2, 3, 6, 8)]
    assert jsonl.read(folder / "scores.jsonl") == found


@pytest.mark.parametrize("damage", ["truncated", "text", "missing", "empty"])
def test_a_broken_image_is_an_error_and_not_a_zero(folder: Path, damage: str) -> None:
    file = folder / "1.png"
    data = file.read_bytes()
    broken = {"truncated": data[: len(data) // 2], "text": b"<html>404</html>", "empty": b""}
    file.unlink() if damage == "missing" else file.write_bytes(broken[damage])
    found = scores(folder, Redness())
    assert "score" not in found[1] and "1.png" in str(found[1]["error"])
    assert [row["score"] for row in found if "score" in row] == pytest.approx([REDS[0], *REDS[2:]])


def test_a_score_that_is_not_finite_is_an_error(folder: Path) -> None:
    found = scores(folder, Undefined())
    assert [row.get("score") for row in found] == [1.0, None, 1.0, 1.0]
    assert "the score is nan" in str(found[1]["error"])
    assert all("NaN" not in line for line in (folder / "scores.jsonl").read_text().splitlines())


def test_a_killed_run_scores_only_what_is_missing(folder: Path) -> None:
    class Killed(Redness):
        def score(self, images: Tensor, prompts: list[str]) -> Tensor:
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().score(images, prompts)

    with pytest.raises(KeyboardInterrupt):
        scores(folder, Killed(), batch_size=1)
    with (folder / "scores.jsonl").open("a") as stream:
        stream.write('{"file": "2.png", "pro')  # the write that the kill cut short
    reward = Redness()
    seen: list[int] = []
    found = score_manifest(
        reward, "red", manifest.read(folder), folder / "scores.jsonl", batch_size=1, progress=seen.append
    )
    assert len(reward.batches) == 2 and seen == [2, 1, 1]
    assert [row["score"] for row in found] == pytest.approx(REDS)
    assert [row["file"] for row in jsonl.read(folder / "scores.jsonl")] == [f"{i}.png" for i in range(4)]


def test_a_mended_image_is_scored_on_the_next_run(folder: Path) -> None:
    good = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(good[:20])
    assert "error" in scores(folder, Redness())[0]
    (folder / "0.png").write_bytes(good)
    reward = Redness()
    assert scores(folder, reward)[0]["score"] == 1.0
    assert len(reward.batches) == 1
    lines = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    assert len(lines) == 4 and not any("error" in line for line in lines)


def test_an_image_that_was_replaced_is_scored_again(folder: Path) -> None:
    scores(folder, Redness())
    Image.new("RGB", (8, 8), (51, 9, 1)).save(folder / "0.png")
    reward = Redness()
    found = scores(folder, reward)
    assert found[0]["score"] == pytest.approx(0.2) and len(reward.batches) == 1
    assert len(jsonl.read(folder / "scores.jsonl")) == 4


def test_scores_of_another_reward_are_not_mixed_in(folder: Path) -> None:
    scores(folder, Redness())
    with pytest.raises(ValueError, match=r"got scores of red in .*; expected blue"):
        scores(folder, Redness(), name="blue")


def test_pixels_are_read_without_loss(tmp_path: Path) -> None:
    Image.new("RGB", (2, 1), (0, 51, 255)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").tolist() == [
        [[0.0, 0.0]],
        [[pytest.approx(0.2)] * 2],
        [[1.0, 1.0]],
    ]


def test_a_batch_ends_where_its_pixels_are_too_many(folder, monkeypatch):
    monkeypatch.setattr("t2ialign.evaluation.manifest_scores.MAX_BATCH_PIXELS", 100)
    reward = Redness()
    assert [row["score"] for row in scores(folder, reward)] == pytest.approx(REDS)
    assert [tuple(shape) for shape in reward.batches] == [(1, 3, 8, 8)] * 2 + [(2, 3, 6, 8)]
