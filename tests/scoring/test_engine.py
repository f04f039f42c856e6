"""The engine: every row its own score, in order; one forward a batch, one text encoding a prompt."""

import math
from collections.abc import Mapping

import pytest
import torch

from rewards import Reward
from rewards.scorers.unified_reward import PointScore
from rewards.vlm.base import Judge
from t2ialign.scoring import engine as module
from t2ialign.scoring.engine import PATIENCE, Engine, Row
from t2ialign.scoring.items import Item
from tests.scoring.images import SQUARE, Brightness, Channels, Corner, Fussy, Match, Redness, plain, png


def items(count: int, prompts: list[str | None] | None = None, sizes: tuple[int, ...] = (12,)) -> list[Item]:
    """Red images, the i-th with red i."""
    texts = prompts or ["a red square"]
    return [
        Item(0, i, f"{i}.png", texts[i % len(texts)], png(plain(i, size=(sizes[i % len(sizes)], 10))))
        for i in range(count)
    ]


def score(rewards: Mapping[str, Reward], rows: list[Item], **options) -> list[Row]:
    return [row for batch in Engine(rewards, **options).score(rows) for row in batch]


def test_every_reward_gives_every_row_its_own_score():
    rows = score({"red": Redness(), "corner": Corner()}, items(7, sizes=(12, 9)), batch_size=3)
    assert [row["file"] for row in rows] == [f"{i}.png" for i in range(7)]
    for i, row in enumerate(rows):
        assert row["scores"]["red"] == pytest.approx(i / 255)
        assert row["error"] is None and row["prompt"] == "a red square"
        assert row["scores"]["corner"] == pytest.approx(i / 255)


def test_raw_images_are_batched_by_size():
    reward = Redness()
    score({"red": reward}, items(8, sizes=(12, 9)), batch_size=8)
    assert sorted(tuple(shape) for shape in reward.batches) == [(4, 3, 10, 9), (4, 3, 10, 12)]


@pytest.mark.parametrize("order", ["by turns", "in blocks"])
def test_64_images_of_4_prompts_run_4_image_forwards_and_one_of_text(order):
    """Two rewards on one tower and a third that needs no text: still one encoding of each."""
    tower = Channels()
    prompts = ["a red cat", "a green cat", "a blue cat", "a cat"]
    rows = items(64, prompts if order == "by turns" else [p for p in prompts for _ in range(16)])
    rewards = {"a": Match(tower, SQUARE), "b": Match(tower, SQUARE), "bright": Brightness(tower, SQUARE)}
    scored = score(rewards, rows, batch_size=16)
    assert tower.images == [16] * 4
    assert tower.prompts == [prompts]
    assert len(scored) == 64 and all(row["scores"]["a"] == row["scores"]["b"] for row in scored)


def test_a_reward_of_the_image_alone_runs_no_text_tower_and_needs_no_prompt():
    tower = Channels()
    scored = score({"bright": Brightness(tower, SQUARE)}, items(5, [None]))
    assert not tower.prompts and all(row["error"] is None and row["prompt"] is None for row in scored)


def test_a_row_without_a_prompt_is_an_error_where_one_is_needed():
    good, bad = score({"a": Match(Channels(), SQUARE)}, items(2, ["a red cat", None]))
    assert good["error"] is None
    assert bad["scores"] == {} and "1.png: got no prompt" in bad["error"]


def test_a_row_without_a_prompt_keeps_the_scores_that_need_none():
    """One tower: still one image forward for the rows that all rewards score."""
    tower = Channels()
    rewards = {
        **{"a": Match(tower, SQUARE), "bright": Brightness(tower, SQUARE), "red": Redness()},
        **{"pale": Pale(), "b": Match(tower, SQUARE)},
    }
    scored = score(rewards, items(4, ["a red cat", None], sizes=(12, 12, 9)))
    assert tower.images == [2, 2]
    for i, row in enumerate(scored):
        whole = i % 2 == 0
        assert set(row["scores"]) == ({"a", "bright", "red", "pale", "b"} if whole else {"bright", "pale"})
        assert row["scores"]["pale"] == pytest.approx(1 - i / 255)
        assert row["prompt"] == ("a red cat" if whole else None)
        if not whole:
            assert row["error"].startswith(f"{i}.png: a, red, b: got no prompt; expected NAME.txt")
    with pytest.raises(ValueError, match=r"got no prompt for any of the first 2 .* one each for a, red, b: "):
        score(rewards, items(2, [None]))


def test_errors_of_the_source_are_not_taken_for_images_without_a_prompt():
    rows = [Item(0, i, f"{i}.tar", None, None, error=f"{i}.tar: torn") for i in range(2)]
    scored = score({"a": Match(Channels(), SQUARE)}, rows)
    assert [row["error"] for row in scored] == ["0.tar: torn", "1.tar: torn"]


class Writer(Judge):
    """Writes a score that is the red of the image, and something else where that is not in 1 to 5."""

    def __init__(self) -> None:
        self.answered = 0

    def _answer(self, images, questions, rows):
        raise NotImplementedError

    def _write(self, images, questions, rows, tokens, cut):
        self.answered += len(questions)
        return [f"Final Score: {255 * float(images[row, 0].mean()):.0f}" for row in rows]


def test_an_unreadable_answer_costs_that_row_alone_and_nobody_is_asked_again():
    judge = Writer()
    rewards = {"red": Redness(), "written": PointScore(judge), "twice": Twice(PointScore(Writer()))}
    scored = score(rewards, items(8), batch_size=8)
    assert judge.answered == 8 + 3
    for i, row in enumerate(scored):
        readable = 1 <= i <= 5
        assert row["scores"]["red"] == pytest.approx(i / 255)
        assert row["scores"].get("written") == (i if readable else None)
        assert row["scores"].get("twice") == (2 * i if readable else None), "as a part of another reward"
        assert (row["error"] is None) == readable
    assert "7.png: written: got 'Final Score: 7', asked twice" in scored[7]["error"]


def test_answers_that_are_all_unreadable_stop_the_run():
    with pytest.raises(ValueError, match="got 'Final Score: 0' for 6 of 6 images, asked twice"):
        score({"written": PointScore(Writer())}, [items(1)[0]] * 20, batch_size=6)


def test_no_prompt_at_all_stops_the_run():
    with pytest.raises(
        ValueError, match=r"no prompt for any of the first 20 images; .* for a: .* prompts_from_names"
    ):
        score({"a": Match(Channels(), SQUARE)}, items(20, [None]))


def test_scores_do_not_depend_on_the_batch_or_on_workers():
    rewards = {"a": Match(Channels(), SQUARE), "corner": Corner(), "red": Redness()}
    rows = items(20, ["a red cat", "a blue cat", "a red and green cat"], sizes=(12, 9, 7))
    alone = score(rewards, rows, batch_size=1)
    for options in ({"batch_size": 7}, {"batch_size": 64}, {"batch_size": 4, "workers": 2}):
        together = score(rewards, rows, **options)
        for one, two in zip(alone, together, strict=True):
            assert one["id"] == two["id"] and one["error"] == two["error"]
            assert one["scores"] == pytest.approx(two["scores"], abs=1e-6)


def test_broken_images_are_errors_among_good_ones():
    rows = items(6)
    rows[0] = Item(0, 0, "0.png", "x", b"")
    rows[4] = Item(0, 4, "4.png", "x", None, error="4.png: gone")
    scored = score({"red": Redness(), "corner": Corner()}, rows, batch_size=3)
    assert [row["row"] for row in scored] == list(range(6))
    assert "zero bytes" in scored[0]["error"] and scored[4]["error"] == "4.png: gone"
    assert scored[0]["scores"] == scored[4]["scores"] == {}
    assert [row["scores"]["red"] for row in scored if row["scores"]] == pytest.approx(
        [i / 255 for i in (1, 2, 3, 5)]
    )


def test_a_batch_of_nothing_but_broken_images():
    rows = [Item(0, i, f"{i}", "x", b"") for i in range(3)]
    scored = score({"red": Redness(), "a": Match(Channels(), SQUARE)}, rows, batch_size=2)
    assert len(scored) == 3 and all("zero bytes" in row["error"] for row in scored)


class Pale(Redness):
    """Of the image alone."""

    needs_text = False

    def score(self, images, prompts):
        return 1 - super().score(images, prompts)


class Twice(Reward):
    """A reward made of another."""

    def __init__(self, base: Reward) -> None:
        super().__init__()
        self.base = base

    def score(self, images, prompts):
        return 2 * self.base.score(images, prompts)


class Undefined(Redness):
    """0 / 0 for a black image."""

    def score(self, images, prompts):
        red = super().score(images, prompts)
        return red / red


def test_a_score_that_is_not_finite_is_an_error_of_that_reward_alone():
    black, red = score({"red": Redness(), "one": Undefined()}, items(2))
    assert black["scores"] == {"red": 0.0} and black["error"] == "0.png: one: the score is nan"
    assert red["scores"]["one"] == 1.0 and red["error"] is None


def test_a_prompt_that_one_reward_refuses_costs_that_score_alone():
    scored = score({"fussy": Fussy(), "red": Redness()}, items(6, ["a", "b", "what?"]), batch_size=6)
    assert [sorted(row["scores"]) for row in scored] == [["fussy", "red"], ["fussy", "red"], ["red"]] * 2
    assert "2.png: fussy: got prompt 'what?'; expected none with a question" in scored[2]["error"]
    assert scored[1]["scores"]["fussy"] == pytest.approx(1 / 255)


def test_a_reward_that_refuses_everything_from_the_start_raises():
    with pytest.raises(ValueError, match="expected none with a question"):
        score({"fussy": Fussy(), "red": Redness()}, items(PATIENCE, ["what?"]), batch_size=5)
    rest = score({"fussy": Fussy()}, items(PATIENCE, ["what?"]), proven=True)
    assert len(rest) == PATIENCE and all("question" in row["error"] for row in rest)


class Faulty(Redness):
    """Code of a user's that fails on one prompt in the way that it says."""

    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result

    def score(self, images, prompts):
        if "bad" not in prompts:
            return super().score(images, prompts)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (RuntimeError("sizes differ"), "RuntimeError (sizes differ)"),
        (KeyError("x"), "KeyError ('x')"),
        (MemoryError(), "MemoryError (no message)"),
        (ZeroDivisionError("by\nzero"), "ZeroDivisionError (by zero)"),
        ([0.5], "got a list from Faulty.score"),
        (None, "got a NoneType from Faulty.score"),
        (torch.zeros(1, 1), "got float32 (1, 1) from Faulty.score"),
        (torch.zeros(7), "got float32 (7,) from Faulty.score"),
        (torch.zeros(1, dtype=torch.long), "got int64 (1,) from Faulty.score"),
    ],
)
def test_a_reward_that_fails_in_any_way_costs_that_score_alone(result, reason):
    scored = score({"faulty": Faulty(result), "red": Redness()}, items(4, ["good", "bad"]))
    assert [sorted(row["scores"]) for row in scored] == [["faulty", "red"], ["red"]] * 2
    assert scored[1]["error"].startswith("1.png: faulty: ") and reason in scored[1]["error"]
    assert scored[0]["error"] is scored[2]["error"] is None
    with pytest.raises(ValueError, match=r"Faulty\.score"):
        score({"faulty": Faulty(result)}, items(PATIENCE, ["bad"]), batch_size=5)


def test_an_error_of_ours_costs_a_row_as_well(monkeypatch):
    def fails(*_):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(module, "score_all", fails)
    assert score({"red": Redness()}, items(1))[0]["error"] == "0.png: red: RuntimeError (no kernel)"
    with pytest.raises(ValueError, match=r"got RuntimeError \(no kernel\) from red; expected scores"):
        score({"red": Redness()}, items(PATIENCE))


def test_bf16_runs_under_autocast_and_stays_near():
    class Linear(Corner):
        def score_prepared(self, pixels, prompts):
            out = torch.nn.functional.linear(pixels.flatten(1), torch.ones(1, pixels[0].numel()))
            self.kind = out.dtype
            return out[:, 0].float()

    rewards = {"linear": Linear()}
    exact, rounded = score(rewards, items(9)), score(rewards, items(9), precision="bf16")
    assert rewards["linear"].kind == torch.bfloat16
    for one, two in zip(exact, rounded, strict=True):
        assert math.isclose(one["scores"]["linear"], two["scores"]["linear"], rel_tol=2e-2, abs_tol=1e-3)


def test_texts_are_encoded_window_by_window(monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 8)
    tower = Channels()
    score({"a": Match(tower, SQUARE)}, items(20, [f"red {i}" for i in range(20)]), batch_size=4)
    assert [len(prompts) for prompts in tower.prompts] == [8, 8, 4]
    assert len({prompt for prompts in tower.prompts for prompt in prompts}) == 20


def test_no_gradients_are_kept():
    tower = Channels()
    reward = Match(tower, SQUARE)
    tower.scale.requires_grad_(True)
    seen = []
    reward.register_forward_hook(lambda *_: seen.append("forward"))
    launched, _ = Engine({"a": reward}).launch(
        module.Decoder([SQUARE], raw=False).decode(items(2)),
    )
    assert not launched["a"].requires_grad


def test_a_prompt_longer_than_any_reward_reads_is_an_error_of_its_row():
    rows = score({"red": Redness()}, items(3, ["a", "x" * 300_000, "b"]), batch_size=3)
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert "1.png: got a prompt of 300000 letters" in rows[1]["error"] and len(rows[1]["error"]) < 300
    assert not rows[1]["scores"]
