"""Settings: later wins, what is saved loads back equal, and every mistake is one helpful line."""

import os
import resource
from pathlib import Path
from typing import Literal

import pytest
import torch
from pydantic import Field, ValidationError

from t2ialign.cli import main as cli
from t2ialign.config import Config, describe, load, read_yaml, save


class Optim(Config):
    """Nested settings."""

    lr: float = 1e-4


class Parent(Config):
    """Every trainer."""

    lr: float = Field(1e-5, gt=0)
    """Peak learning rate."""
    max_steps: int = Field(1000, ge=1)
    output: Path = Path("runs/new")
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    trackers: tuple[str, ...] = ("tensorboard",)


class Demo(Parent):
    """Only this trainer."""

    data: str
    """Where the pairs are."""
    max_steps: int = Field(default=10, ge=1)
    """Fewer."""
    beta: float = 5000.0
    resolution: int | None = None
    flip: bool = True
    optim: Optim = Optim()


def message(*overrides: str, file: Path | None = None) -> str:
    with pytest.raises(ValueError) as caught:
        load(Demo, file, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_later_wins_and_the_saved_file_loads_back_equal(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("beta: 100\nlr: 1e-3\ndata: a\ntrackers: [wandb]\n")
    cfg = load(Demo, file, ["lr=2e-5", "optim.lr=0.3", "resolution=none", "flip=false"])
    assert (cfg.beta, cfg.lr, cfg.optim.lr, cfg.resolution, cfg.flip) == (100, 2e-5, 0.3, None, False)
    assert cfg.trackers == ("wandb",) and cfg.max_steps == 10
    save(cfg, tmp_path / "resolved.yaml")
    assert load(Demo, tmp_path / "resolved.yaml") == cfg


def test_yaml_1_1_reads_1e_3_as_text_and_it_still_becomes_a_number(tmp_path):
    (tmp_path / "a.yaml").write_text("data: x\nlr: 1e-3\n")
    assert load(Demo, tmp_path / "a.yaml").lr == 1e-3


@pytest.mark.parametrize("text", ["007", "2024", "no", "a: b", "a=b", "[x"])
def test_a_text_key_takes_the_words_as_typed(text):
    cfg = load(Demo, None, [f"data={text}", f"output={text}"])
    assert (cfg.data, cfg.output) == (text, Path(text))


@pytest.mark.parametrize(
    "text, words",
    [
        ("wandb", ("wandb",)),
        ("a cat, asleep: 3 pm", ("a cat, asleep: 3 pm",)),
        ("007", ("007",)),
        ("[a cat, a dog]", ("a cat", "a dog")),
        ("[]", ()),
        ("none", ()),
        ("", ()),
    ],
)
def test_a_list_of_text_takes_one_word_without_brackets(text, words):
    assert load(Demo, None, ["data=x", f"trackers={text}"]).trackers == words


def test_a_broken_list_is_an_error_and_not_a_word():
    assert "valid tuple" in message("data=x", "trackers=[wandb")


def test_one_word_in_a_recipe_is_a_list_too(tmp_path):
    (tmp_path / "a.yaml").write_text("data: x\ntrackers: wandb\n")
    assert load(Demo, tmp_path / "a.yaml").trackers == ("wandb",)


def test_a_save_that_fails_leaves_the_file_that_was_there(tmp_path):
    file, cfg = tmp_path / "config.yaml", load(Demo, None, ["data=" + 4096 * "x"])
    file.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(OSError):
            save(cfg, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_text() == "old"


def test_an_unknown_key_names_the_nearest_one():
    assert message("data=x", "betas=1") == (
        "got unknown key 'betas'; expected 'beta', the nearest known one; --help lists every key"
    )
    assert "'lr'" in message("data=x", "learning_rat=1")  # the nearest is what other trainers call it
    assert "'output'" in message("data=x", "output_dri=1")
    assert "--help" in message("data=x", "zzzzzz=1")


def test_a_wrong_value_says_what_was_expected_and_what_the_key_means():
    assert message("data=x", "lr=-1") == (
        "lr: got -1; expected a number greater than 0; --help says of lr: Peak learning rate"
    )
    assert "valid integer" in message("data=x", "max_steps=many")
    assert "'adamw' or 'adamw8bit'" in message("data=x", "optimizer=sgd")
    assert " | " in message("data=x", "lr=-1", "bata=2")  # every mistake at once


def test_a_missing_key_says_what_it_is():
    assert message() == "got no 'data'; expected where the pairs are; add data=..."


def test_bad_files_and_overrides(tmp_path):
    assert "key=value" in message("lr")
    assert "key=value" in message("=1")
    assert "check the path" in message(file=tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    assert "got a list" in message(file=tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    assert "not YAML" in message(file=tmp_path / "broken.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not YAML" in message(file=tmp_path / "binary.yaml")
    assert "expected data to hold keys" in message("data=x", "data.y=1")


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        load(Demo, None, ["data=x"]).lr = 3.0


def test_help_shows_types_defaults_limits_and_docstrings_own_keys_first():
    text = describe(Demo)
    assert "data (text; required)\n      Where the pairs are." in text
    assert "lr (float > 0; default 1e-05)\n      Peak learning rate." in text
    assert text.count("max_steps (int >= 1; default 10)\n      Fewer.") == text.count("max_steps") == 1
    assert "resolution (int or none; default none)" in text and "flip (true | false; default true)" in text
    assert "optimizer (adamw | adamw8bit; default adamw)" in text
    assert "trackers (list of text; default [tensorboard])" in text
    assert text.index("Only this trainer.") < text.index("beta") < text.index("Every trainer.")


HOSTILE = {
    "bomb": "lr:\n - &a0 [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f" - &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)),
    "endless": "lr: &a [*a]\n",
    "deep": "lr: " + "[" * 5000 + "]" * 5000,
    "nested": "lr: " + "[" * 30 + "]" * 30,
    "tag": "max_steps: !!bool x\n",
    "code": "lr: !!python/object/apply:os.system [id]\n",
    "date": "lr: 2020-99-99\n",
    "digits": "max_steps: " + "9" * 5000,
    "key": "[1]: 2\n",
    "bytes": "lr: !!binary x\n",
    "large": "max_steps: 9223372036854775808\n",
    "kind": "trackers: {a: 1}\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_yaml_is_one_short_line(tmp_path, text):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match="got ") as caught:
        load(Parent, file)
    message = str(caught.value)
    assert len(message) < 1000 and "\n" not in message and ("x.yaml" in message or "max_steps" in message)


@pytest.mark.parametrize(
    "value",
    ["[" * 3000 + "]" * 3000, "!!bool x", "[a", "{a: 1}", "2020-99-99", "9" * 5000, "9223372036854775808"],
)
def test_hostile_overrides_are_one_short_line(value):
    with pytest.raises(ValueError, match="max_steps: got ") as caught:
        load(Parent, None, [f"max_steps={value}"])
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


BEYOND = [RecursionError, OverflowError, MemoryError, torch.OutOfMemoryError, "torch"]


@pytest.mark.parametrize("kind", BEYOND)
def test_what_is_beyond_any_size_is_one_line_and_exit_code_2(monkeypatch, capsys, kind):
    def fails(_):
        if kind == "torch":
            torch.empty(2**62)
        raise kind("beyond")

    monkeypatch.setattr(cli, "_run", fails)
    assert cli.main(["recipes"]) == 2
    assert capsys.readouterr().err.startswith("t2ialign: error: got ")


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "device"])
def test_a_recipe_that_is_no_file_is_never_opened(tmp_path, kind):
    """A pipe would be waited for, and a device may never end."""
    file = tmp_path / "recipe.yaml"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("recipe.yaml" if kind == "loop" else "/dev/zero")
    with pytest.raises(ValueError, match=r"got config .*recipe.yaml; expected a YAML file"):
        read_yaml(file)


def test_a_key_that_is_given_twice_is_refused_and_a_merged_one_may_be_overridden(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("lr: 1e-5\ndata: x\nlr: 1e-3\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"recipe\.yaml, which is not YAML \(it gives 'lr' twice"):
        read_yaml(file)
    file.write_text("base: &base {lr: 1}\nmine: {<<: *base, lr: 2}\n", encoding="utf-8")
    assert read_yaml(file)["mine"] == {"lr": 2}


def test_names_of_others_and_old_ones_are_taken_in_python_too(caplog):
    class Sampled(Demo):
        """With a setting that was called otherwise at first."""

        model: str = "toy"
        guidance_scale: float = 5.0

    cfg = Sampled(data="a", learning_rate=1e-3, guidance=2.0, model="shapes")
    assert (cfg.lr, cfg.guidance_scale, cfg.model) == (1e-3, 2.0, "toy")
    with pytest.raises(ValueError, match="unknown key 'learning_rate'; expected 'lr'"):
        Sampled(data="a", lr=1e-3, learning_rate=1e-4)


def test_an_object_among_settings_is_called_by_its_class():
    with pytest.raises(ValueError) as caught:
        Demo(data=torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)))
    assert str(caught.value).startswith("data: got a Sequential; expected a valid string")
    assert "\n" not in str(caught.value)
