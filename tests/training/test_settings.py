"""Every setting of the shipped trainers explains itself, and the defaults are the vetted ones."""

import pytest

from t2ialign.config import describe
from t2ialign.methods.dense import trainer as dense
from t2ialign.methods.dpo import trainer as dpo


@pytest.mark.parametrize("cls", [dpo.Config, dense.Config])
def test_every_key_is_documented_once(cls):
    text = describe(cls)
    for name, field in cls.model_fields.items():
        assert field.description, name
        assert text.count(f"\n  {name} (") == 1
    assert cls.model_fields.keys() > cls.FREE


def test_the_defaults_of_dense_are_the_papers_multi_prompt_column():
    cfg = dense.Config(prompts="a cat")
    assert (cfg.max_steps, cfg.collect_every, cfg.collect_prompts) == (40_000, 4000, 2000)
    assert (cfg.rollouts, cfg.keep, cfg.timesteps, cfg.temperature, cfg.clip) == (12, 5, 1, 12.5, 5e-4)
    assert (cfg.lora_rank, cfg.lr, cfg.weight_decay, cfg.batch_size, cfg.max_grad_norm) == (
        *(32, 2e-5, 1.5e-3, 32, 0.05),
    )
    assert (cfg.num_inference_steps, cfg.guidance_scale, cfg.gamma) == (50, 7.5, 0.9)


def test_the_defaults_of_dpo_are_on_the_released_launchers_scale():
    cfg = dpo.Config(data="pairs")
    assert (cfg.beta, cfg.safeguard, cfg.gamma, cfg.weight_decay, cfg.max_grad_norm) == (
        5000,
        0.9,
        1,
        0.01,
        1,
    )
    assert cfg.batch_size * cfg.accumulate == 128
