"""Draws that come again: the reference errs on them once, and nothing changes but the cost."""

import pytest
import torch

from t2ialign.methods.dpo import trainer as dpo
from t2ialign.methods.dpo.remembered import RememberedErrors, draws
from t2ialign.models.load import load_policy
from tests.methods.test_dpo import Calls, trained

EPOCH = 7
"""Steps of 4 pairs among 28."""


def test_a_pair_gets_the_next_draw_each_epoch_and_another_where_it_repeats() -> None:
    assert draws([5, 9, 7], 0, 3) == [0, 0, 0]
    assert draws([5, 9, 5, 5], 1, 3) == [1, 1, 2, 0]


def test_what_is_new_is_computed_and_the_rest_remembered() -> None:
    remembered, asked = RememberedErrors(3, 2, torch.device("cpu")), []

    def errors(rows: list[int]) -> torch.Tensor:
        asked.append(rows)
        return torch.tensor([[float(row), 10.0 * len(asked)] for row in rows])

    assert remembered([(0, 0), (2, 1)], errors).tolist() == [[0, 10], [1, 10]]
    assert remembered([(2, 1), (2, 0), (0, 0)], errors).tolist() == [[1, 10], [1, 20], [0, 10]]
    assert remembered([(2, 0)], errors).tolist() == [[1, 20]]
    assert asked == [[0, 1], [1]]


def test_from_the_second_use_on_a_step_is_one_policy_forward(dpo_config) -> None:
    trainer = dpo.Trainer(
        dpo_config(max_steps=4 * EPOCH, noise_draws=2), policy=load_policy(dpo_config().model)
    )
    unet = Calls(trainer.policy.adapted)
    for _ in range(4 * EPOCH):
        trainer.update({})
    assert unet.rows == [8, 8] * 2 * EPOCH + [8] * 2 * EPOCH


def test_a_draw_comes_again_and_the_next_is_another(dpo_config, pair_cache) -> None:
    trainer = dpo.Trainer(dpo_config(noise_draws=2, caption_dropout_rate=0.5), cache=pair_cache)
    seen: dict[tuple[int, int], tuple[torch.Tensor, ...]] = {}
    for step in range(4 * EPOCH):
        batch = trainer.batch(step, 0)
        (text,) = batch.data.cond.values()
        for row, place in enumerate(batch.places):
            parts = (batch.t[row], batch.eps[row], batch.data.win[row], batch.data.lose[row], text[row])
            for now, before in zip(parts, seen.setdefault(place, parts), strict=True):
                assert torch.equal(now, before)
    assert len(seen) == 2 * 28
    assert all(not torch.equal(seen[pair, 0][1], seen[pair, 1][1]) for pair in range(28))


@pytest.mark.parametrize("loss", ["dpo", "ipo"])
def test_the_loss_is_that_of_a_reference_asked_anew(loss: str, dpo_config, pair_cache) -> None:
    trainer = trained(dpo_config(loss=loss, noise_draws=1), pair_cache)
    first = trainer.batch(0, 0)
    trainer.loss(first)
    again = next(
        batch
        for step in range(EPOCH, 3 * EPOCH)
        for batch in [trainer.batch(step, 0)]
        if set(batch.places) & set(first.places)
    )
    remembered, _ = trainer.loss(again)
    trainer.remembered.known[:] = False
    anew, _ = trainer.loss(again)
    torch.testing.assert_close(remembered, anew, rtol=1e-3, atol=1e-4)
