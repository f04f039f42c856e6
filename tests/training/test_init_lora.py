"""Training that starts from a saved LoRA: its weights, all else fresh, the base model as the reference."""

import math
import re

import pytest
import torch
from safetensors.torch import load_file

from t2ialign import config
from t2ialign.methods.dpo import trainer as dpo
from t2ialign.models.lora_files import FILE
from t2ialign.training import checkpoint
from tests.training import toy
from tests.training.helpers import assert_same_checkpoint, numbers


@pytest.fixture
def first(toy_config, tmp_path):
    """The settings of a finished run, whose LoRA others start from."""
    cfg = toy_config(output=tmp_path / "first", max_steps=2)
    toy.Trainer(cfg).fit()
    return cfg


def lora(folder):
    return load_file(folder / FILE)


@pytest.mark.parametrize("name", [".", "first_kohya.safetensors"])
@pytest.mark.parametrize("alpha", [None, 4.0])
def test_step_0_is_that_lora_and_the_optimiser_is_fresh(first, toy_config, name, alpha):
    trainer = toy.Trainer(toy_config(init_lora=first.output / name, lora_alpha=alpha, ema=0.9))
    assert trainer.state.step == 0 and not trainer.state.bare_optimizer.state
    folder = trainer.state.save(trainer.cfg.output / "checkpoints")
    before, after = lora(first.output), lora(folder)  # of the moving average, which starts there as well
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_ratio_to_the_base_model_is_not_0_at_the_start(dpo_config, pair_cache, tmp_path):
    first = dpo_config(output=tmp_path / "first")
    dpo.Trainer(first, cache=pair_cache).fit()
    second = dpo.Trainer(dpo_config(init_lora=first.output), cache=pair_cache)
    second.fit()
    start, end = numbers(second.cfg.output)[0], numbers(first.output)[-1]
    assert start["heldout/loss"] == end["heldout/loss"] != pytest.approx(math.log(2), abs=1e-4)
    assert abs(numbers(second.cfg.output)[1]["margin"]) > 1e-3
    assert str(first.output) in (second.cfg.output / "README.md").read_text().partition("Started from")[2]


def test_a_resumed_run_is_the_uninterrupted_one(first, toy_config, tmp_path, one_thread):
    whole, cut = (toy_config(init_lora=first.output, output=tmp_path / name) for name in "ab")
    toy.Trainer(whole).fit()
    toy.Trainer(cut.model_copy(update={"max_steps": 2})).fit()
    toy.Trainer(cut.model_copy(update={"resume": "latest"})).fit()
    ends = [checkpoint.whole(cfg.output / "checkpoints")[-1] for cfg in (whole, cut)]
    assert_same_checkpoint(*ends)
    with pytest.raises(ValueError, match="got init_lora=None on resume; expected"):
        toy.Trainer(cut.model_copy(update={"resume": "latest", "init_lora": None}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora_rank": 4}, "of rank 2; expected 4, as of this run; set lora_rank=2"),
        ({"lora_targets": ("to_q",)}, "expected the same layers; set lora_targets as that LoRA has them"),
        ({"init_lora": "nowhere/lora"}, "got LoRA 'nowhere/lora'; expected a .safetensors file"),
    ],
)
def test_a_lora_that_does_not_fit_is_one_line(first, toy_config, changes, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        toy.Trainer(toy_config(**{"init_lora": first.output, **changes}))
    assert "\n" not in str(error.value)
    assert not (toy_config().output / "checkpoints").exists()


def test_kohya_s_name_is_taken():
    cfg = config.load(toy.Config, None, ["network_weights=shapes", "network_dim=4"])
    assert (str(cfg.init_lora), cfg.lora_rank) == ("shapes", 4), "a place, not the former name of a model"


def test_all_weights_start_from_no_lora():
    with pytest.raises(ValueError, match=r"^got init_lora=first with lora_rank=0; expected") as error:
        toy.Config(init_lora="first", lora_rank=0)
    assert "\n" not in str(error.value)
