"""Names of the release before are taken, each with one warning."""

from __future__ import annotations

import logging

import pytest

import rewards
from rewards import renamed
from t2ialign import config
from t2ialign.cli import main as cli
from t2ialign.cli.former import today
from t2ialign.cli.train import settings_of
from t2ialign.tasks.recipe_files import find


@pytest.fixture(autouse=True)
def _anew():
    renamed.warn.cache_clear()


def test_options_of_the_command_that_has_the_new_ones():
    words = ["x", "--steps", "2", "--guidance=3", "--model", "shapes", "--prompt", "shapes"]
    known = lambda: ["--num-inference-steps", "--guidance-scale"]  # noqa: E731
    assert today(words, known) == [
        *("x", "--num-inference-steps", "2", "--guidance-scale=3", "--model", "toy", "--prompt", "shapes")
    ]
    assert today(["--steps", "2"], list) == ["--steps", "2"]


def test_a_word_is_changed_only_as_the_value_of_an_option():
    assert today(["shapes", "--rewards", "shapes-clip,sharpness", "--rewards=shapes-oracle"], list) == [
        *("shapes", "--rewards", "toy-clip,sharpness", "--rewards=toy-oracle")
    ]


def test_settings_and_their_values(caplog, tmp_path):
    (tmp_path / "saved.yaml").write_text(
        "model: shapes\nreward: shapes-clip\nguidance: 2\nnum_steps: 7\nmonitor_guidance: 3\n"
        "prompts: shapes\noutput: shapes\n",
        encoding="utf-8",
    )
    cls = settings_of("backprop")
    with caplog.at_level(logging.WARNING):
        cfg = config.load(cls, tmp_path / "saved.yaml")
    assert (cfg.model, cfg.reward, cfg.guidance_scale, cfg.num_inference_steps) == ("toy", "toy-clip", 2, 7)
    assert (cfg.monitor_guidance_scale, str(cfg.prompts), str(cfg.output)) == (3, "shapes", "shapes")
    assert "the setting guidance is now called guidance_scale" in caplog.text
    assert "shapes-clip is now called toy-clip" in caplog.text


def test_values_that_were_renamed():
    cfg = config.load(
        settings_of("lpo"), None, ["compare=siblings", "siblings=3", "prompts=a", "reward=x", "output=o"]
    )
    assert (cfg.compare, cfg.candidates) == ("candidates", 3)


def test_rewards_keep_the_key_that_was_typed(caplog):
    loaded = rewards.load_all(["shapes-clip"], {"shapes-clip": {}})
    assert list(loaded) == ["shapes-clip"] and type(loaded["shapes-clip"]).__name__ == "ToyClip"
    assert "shapes-clip is now called toy-clip" in caplog.text
    assert not renamed.TODAY.keys() & rewards.names().keys()


def test_recipes(caplog):
    assert find("dpo_shapes") == find("dpo_toy")
    assert "the recipe dpo_shapes is now called dpo_toy" in caplog.text


def test_a_command_of_old_words_renders(tmp_path, capsys):
    output = tmp_path / "out"
    words = ["sample", "a red circle", "--model", "shapes", "--steps", "2", "--guidance", "1"]
    assert cli.main([*words, "--output", str(output)]) == 0
    assert capsys.readouterr().err.count("is now called") == 3
    assert '"steps": 2' in (output / "manifest.jsonl").read_text(encoding="utf-8")


def test_options_of_rewards(caplog):
    with caplog.at_level(logging.WARNING):
        assert renamed.current_options({"guidance": 3, "dim": 2}, ["guidance_scale"]) == {
            **{"guidance_scale": 3, "dim": 2}
        }
    assert "the option guidance is now called guidance_scale" in caplog.text
    assert renamed.current_options({"guidance": 3}, ["guidance"]) == {"guidance": 3}
    assert renamed.current_options({"guidance": 3}, []) == {"guidance": 3}
