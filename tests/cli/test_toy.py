"""Nobody trains or samples the toy without being told: one line, from one process, none if it is named."""

from pathlib import Path

import pytest

from scripts.experiments import labelled_pairs
from t2ialign.cli import main as cli
from t2ialign.config import Config
from t2ialign.tasks.demo import images
from t2ialign.tasks.demo.settings import Settings
from t2ialign.training.methods import load_method, methods, settings_of
from t2ialign.training.settings import TrainConfig

IMAGE_MODELS = [name for name in methods() if issubclass(settings_of(name), TrainConfig)]
LOUD = "TOY MODEL, which draws coloured shapes of 32 pixels"


class NoTrainer:
    """Stands for a trainer, for the settings alone are of interest."""

    def __init__(self, settings: Config) -> None:
        self.settings = settings

    def fit(self) -> None:
        """Trains nothing."""


def told(capfd, *argv: str) -> list[str]:
    """The loud lines of a command that goes on to its end."""
    assert cli.main(list(argv)) == 0
    return [line for line in capfd.readouterr().err.splitlines() if LOUD in line]


@pytest.fixture
def train(monkeypatch, capfd):
    def run(method: str, *overrides: str) -> list[str]:
        monkeypatch.setattr(load_method(method), "Trainer", NoTrainer)
        required = [f"{name}=x" for name, f in settings_of(method).model_fields.items() if f.is_required()]
        return told(capfd, "train", method, *required, *overrides)

    return run


@pytest.mark.parametrize("method", IMAGE_MODELS)
def test_training_without_a_model_says_so_once_and_goes_on(train, method):
    (line,) = train(method)
    assert "model=PATH_OR_HUB_ID" in line and line.startswith("t2ialign: WARNING: NO MODEL WAS NAMED")
    assert train(method, "model=toy") == []


def test_these_are_the_trainers_of_image_models():
    assert {"backprop", "dense", "dpo", "lpo"} <= set(IMAGE_MODELS)


def test_lrm_cannot_be_started_without_a_model(capfd):
    assert cli.main(["train", "lrm", "data=x"]) == 2
    assert "got no 'model'" in capfd.readouterr().err


def test_a_rewriter_is_told_of_the_model_that_renders(train):
    (line,) = train("rewrite_grpo", "model=some/llm")
    assert "generator=PATH_OR_HUB_ID" in line
    assert train("rewrite_grpo", "generator=toy") == train("rewrite_sft") == train("reward") == []


def test_a_recipe_that_names_the_model_is_enough(train, tmp_path):
    (tmp_path / "a.yaml").write_text("model: toy\n")
    (tmp_path / "b.yaml").write_text("lr: 1.0e-3\n")
    assert train("dpo", "-c", str(tmp_path / "a.yaml")) == []
    assert len(train("dpo", "-c", str(tmp_path / "b.yaml"))) == 1


def test_of_several_processes_one_speaks(train, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert train("dpo") == []


def test_sampling_without_a_model_says_so_and_renders_the_toy(capfd, tmp_path):
    argv = ["sample", "a red circle", "--num-inference-steps", "1", "--output"]
    (line,) = told(capfd, *argv, str(tmp_path / "a"))
    assert "--model PATH_OR_HUB_ID" in line
    assert told(capfd, *argv, str(tmp_path / "b"), "--model", "toy") == []
    assert (tmp_path / "a" / "00000.png").read_bytes() == (tmp_path / "b" / "00000.png").read_bytes()


def test_the_demo_and_the_proofs_name_it_themselves(monkeypatch, tmp_path: Path):
    models = []
    monkeypatch.setattr("t2ialign.tasks.rendering.run", lambda how, *given, **more: models.append(how.model))
    monkeypatch.setattr("t2ialign.toy.preferences.write_pairs", lambda folder, file: 0)
    prompts = ["a red circle"]
    images.sample(tmp_path / "demo", prompts, first_seed=0, settings=Settings(), guidance_scale=2)
    labelled_pairs.sampled(tmp_path / "pairs", prompts, 2, first_seed=0, options={})
    assert models == ["toy", "toy"]
