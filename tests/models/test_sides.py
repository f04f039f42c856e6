"""Sizes that a model cannot take are refused by its configuration, before any weights are read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from t2ialign.methods.backprop import trainer as backprop
from t2ialign.methods.dpo import trainer as dpo
from t2ialign.methods.lrm import trainer as lrm
from t2ialign.models.load import load_policy

MULTIPLES = {"tiny_sd": 4, "tiny_sdxl": 4, "sd3": 8, "flux": 8, "z-image": 8}
"""Of the tiny models: a cell is 4 pixels a side, a token of a flow model two cells."""


@pytest.mark.parametrize("model", MULTIPLES)
def test_a_side_that_does_not_divide(
    model: str, folder_of: Callable[[str], str], request: pytest.FixtureRequest
) -> None:
    folder, multiple = folder_of(model), MULTIPLES[model]
    assert load_policy(folder, device="cpu", sides=(multiple, 3 * multiple)).size_multiple == multiple
    request.getfixturevalue("unread")
    with pytest.raises(ValueError, match=f"size 64x65; expected both sides to be multiples of {multiple}"):
        load_policy(folder, sides=(64, 65))


def test_trainers_and_samples_say_which_sides_they_want(tiny_sd: Path, tmp_path: Path, unread: None) -> None:
    common = {"model": str(tiny_sd), "output": tmp_path / "run"}
    wrong = r"size 37; expected both sides to be multiples of 4 pixels"
    with pytest.raises(ValueError, match=wrong):
        dpo.Trainer(dpo.Config.model_validate({**common, "data": "pairs", "resolution": 37}))
    with pytest.raises(ValueError, match=wrong):
        lrm.Trainer(lrm.Config.model_validate({**common, "data": "pairs", "resolution": 37}))
    with pytest.raises(ValueError, match=wrong):
        backprop.Trainer(backprop.Config.model_validate({**common, "prompts": "a cat", "width": 37}))


def test_a_side_beyond_the_positions_of_stable_diffusion_3(
    folder_of: Callable[[str], str], request: pytest.FixtureRequest
) -> None:
    """Its table has 16 tokens of 8 pixels a side; the other families have no such end."""
    folder = folder_of("sd3")
    policy = load_policy(folder, device="cpu", sides=(128, 8))
    assert policy.latent_shape(128, 8) == (16, 32, 2)
    with pytest.raises(ValueError, match="got size 136x8; expected sides of up to 128 pixels"):
        policy.latent_shape(136, 8)
    request.getfixturevalue("unread")
    with pytest.raises(ValueError, match="got size 64x136; expected sides of up to 128 pixels"):
        load_policy(folder, sides=(64, 136))
