"""Training from one file of weights, from photographs to the LoRA, and what the card says of its reading."""

import logging

import pytest
import yaml

from t2ialign.methods.dpo import trainer as dpo
from t2ialign.models.load import load_policy
from t2ialign.models.lora_apply import load_lora
from t2ialign.models.options import ModelOptions
from tests.models.released import pipeline, released, write
from tests.training import toy


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(released(pipeline("sd1")), tmp_path_factory.mktemp("file") / "model.safetensors")


def test_a_lora_is_trained_on_a_file(dpo_config, file, tmp_path):
    options = {"clip_skip": 1, "prediction_type": "v_prediction"}
    cfg = dpo_config(model=file, resolution=32, max_steps=1, batch_size=2, limit=6, **options)
    trainer = dpo.Trainer(cfg)
    assert trainer.policy.options == ModelOptions(**options)
    trainer.fit()
    assert (
        "- Model read with: clip_skip=1, prediction_type=v_prediction"
        in (cfg.output / "README.md").read_text()
    )
    saved = yaml.safe_load((cfg.output / "config.yaml").read_text())
    assert {key: saved[key] for key in options} == options
    policy = load_policy(file, device="cpu")
    load_lora(policy, cfg.output)
    assert policy.loras


def test_pairs_encoded_with_other_layers_are_another_cache(dpo_config, file, tmp_path):
    cfg = {"model": file, "resolution": 32, "batch_size": 2, "limit": 6, "cache": tmp_path / "cache"}
    dpo.Trainer(dpo_config(**cfg))
    with pytest.raises(ValueError, match="clip_skip"):
        dpo.Trainer(dpo_config(**cfg, clip_skip=1, output=tmp_path / "other"))


def test_a_distilled_model_is_warned_of_before_training_only(toy_config, tiny_sd, tmp_path, caplog):
    (tmp_path / "sd-turbo").symlink_to(tiny_sd)
    with caplog.at_level(logging.WARNING, logger="t2ialign"):
        load_policy(str(tmp_path / "sd-turbo"), device="cpu")
        assert caplog.messages == []
        toy.Trainer(toy_config(model=str(tmp_path / "sd-turbo")))
    assert len(caplog.messages) == 1
    assert "distilled to a few steps (its name has 'turbo'); training on all" in caplog.messages[0]
