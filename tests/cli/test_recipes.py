"""Every vetted recipe is a valid configuration, says how to run it, and differs from the defaults only."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from t2ialign.cli import main as cli
from t2ialign.cli import recipes
from t2ialign.config import load
from t2ialign.data.prompts import read_prompts
from t2ialign.tasks import recipe_files
from t2ialign.tasks.demo.settings import TRAINING
from t2ialign.training.methods import load_method, methods, settings_of

ROOT = Path(__file__).resolve().parents[2]
IMAGE_METHODS = ("dpo", "dense", "backprop", "lrm", "lpo", "grpo", "sft", "kto", "tpo")
RECIPES = sorted((ROOT / "scripts" / "configs").glob("*.yaml"))


def method_of(recipe: Path) -> str:
    return max((name for name in methods() if f"{recipe.stem}_".startswith(f"{name}_")), key=len)


def test_there_is_a_recipe_for_every_method_and_family() -> None:
    names = {recipe.stem for recipe in RECIPES}
    assert {
        *(f"{name}_{family}" for name in IMAGE_METHODS for family in ("toy", "sd15", "sdxl")),
        "dpo_sd15_small",
        "dpo_sdxl_small",
        "dpo_small_model",
        "reward_toy",
        "rewrite_sft_llm",
        "rewrite_grpo_sd15",
    } <= names
    assert {method_of(recipe) for recipe in RECIPES} <= set(methods())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_recipe_is_a_valid_configuration(recipe: Path) -> None:
    config = load(settings_of(method_of(recipe)), recipe)
    assert str(config.model_dump()["output"]) == f"runs/{recipe.stem}"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_recipe_begins_with_purpose_command_hardware_time_and_result(recipe: Path) -> None:
    text = recipe.read_text()
    found = re.findall(r"^# (\w+): {2,}.+$", text, re.M)
    assert found == ["Purpose", "Command", "Hardware", "Time", "Result"] == list(recipes.header_of(recipe))
    assert text.startswith("# Purpose:")


@pytest.fixture
def start(tmp_path: Path, monkeypatch) -> Callable[..., Any]:
    """Runs the verb in an empty folder, as of an installed package, with a trainer that trains nothing."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> Any:
        started: list[Any] = []

        def trainer(settings: Any) -> SimpleNamespace:
            started.append(settings)
            return SimpleNamespace(fit=lambda: None)

        monkeypatch.setattr(load_method(argv[0]), "Trainer", trainer)
        assert cli.main(["train", *argv]) == 0
        return started[0]

    return run


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_the_command_of_a_recipe_is_one_that_works(recipe: Path, start) -> None:
    command = recipes.header_of(recipe)["Command"].partition(" (after")[0]
    before, _, words = command.partition("t2ialign train ")
    assert before in ("", "accelerate launch --quiet -m ")
    method, *rest = words.split()
    assert (method, rest[:2]) == (method_of(recipe), ["-c", recipe.stem])
    assert str(start(method, *rest).output) == f"runs/{recipe.stem}"


def test_the_toy_recipe_trains_as_a_round_of_the_demo_does() -> None:
    recipe = yaml.safe_load((ROOT / "scripts" / "configs" / "dpo_toy.yaml").read_text())
    settings = {key: value for key, value in recipe.items() if key not in ("model", "data", "output")}
    assert settings == {k: list(v) if isinstance(v, tuple) else v for k, v in TRAINING.items()}


def test_prompts_of_the_shapes_recipe_hold_nothing_out_by_mistake() -> None:
    from rewards.toy.captions import parse
    from t2ialign.toy.captions import is_held_out

    train, held = (
        read_prompts(ROOT / "scripts" / "configs" / f"{name}.txt")
        for name in ("toy_prompts", "toy_heldout_prompts")
    )
    assert not any(map(is_held_out, train)) and all(map(is_held_out, held))
    assert len(set(train)) == 240 and len(set(held)) == 60
    assert {parse(prompt).category for prompt in train} == {parse(prompt).category for prompt in held}


def test_accelerate_adds_no_traceback_to_a_users_error() -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_processes", "1"]
    argv = [*launch, "-m", "t2ialign", "train", "dop", "data=x"]  # as the recipes do
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1, "the launcher's own code, as docs/training.md says"
    assert "Traceback" not in done.stderr
    assert done.stderr.count("t2ialign: error: got method 'dop'") == 1


def test_make_clean_keeps_what_users_made() -> None:
    lines = (ROOT / "Makefile").read_text().partition("\nclean:\n")[2].splitlines()
    removed = [word for line in lines for word in line.split()]
    assert ".venv" in removed and not {"runs", "proofs", "assets"} & set(removed)


def test_the_launcher_is_the_verb() -> None:
    argv = [sys.executable, str(ROOT / "scripts" / "train.py"), "dop", "data=x", "beta=1"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("t2ialign: error: got method 'dop'; expected one of")


def test_prompts_beside_a_recipe_are_found_from_anywhere(start, tmp_path: Path) -> None:
    """Those of the shipped recipes, of a copy of one, and first of all a file of that name in the folder."""
    shipped = recipe_files.folder() / "toy_prompts.txt"
    settings = start("backprop", "-c", "backprop_toy")
    assert settings.prompts == str(shipped) and len(read_prompts(shipped)) > 50
    assert settings.monitor_prompts == str(recipe_files.folder() / "toy_heldout_prompts.txt")
    (tmp_path / "copy.yaml").write_text(recipe_files.find("backprop_toy").read_text())
    assert start("backprop", "-c", "copy").prompts == str(shipped)
    (tmp_path / "toy_prompts.txt").write_text("a red circle\n")
    assert start("backprop", "-c", "backprop_toy").prompts == "toy_prompts.txt"
    assert start("backprop", "-c", "backprop_toy", "prompts=a blue cross").prompts == "a blue cross"


def test_a_name_is_a_file_here_or_else_a_recipe(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe_files.find("dpo_sd15") == recipe_files.folder() / "dpo_sd15.yaml"
    (tmp_path / "dpo_sd15.yaml").write_text("lr: 1.0e-3\n")
    assert recipe_files.find("dpo_sd15") == Path("dpo_sd15.yaml")
    for path in ("absent.yaml", "runs/absent", "./dpo_sdxl"):
        assert recipe_files.find(path) == Path(path)


def test_a_wrong_name_is_one_line_with_the_nearest(capsys) -> None:
    for argv in (["train", "dpo", "-c", "dpo_sd15_smal"], ["recipes", "dpo_sd15_smal"]):
        assert cli.main(argv) == 2
        assert capsys.readouterr().err == (
            "t2ialign: error: got recipe 'dpo_sd15_smal'; expected a YAML file or the name of a recipe; "
            "did you mean dpo_sd15_small?\n"
        )


def test_the_list_names_each_recipe_with_what_it_is_for_and_needs(capsys) -> None:
    assert cli.main(["recipes"]) == 0
    text = capsys.readouterr().out
    for recipe in RECIPES:
        about = recipes.describe(recipe)
        assert about.method == method_of(recipe)
        assert f"{recipe.stem}  ({about.method}, {about.model})\n    {about.purpose}\n" in text
        assert f"Hardware: {about.hardware}\n" in text
        assert len(about.purpose) <= 100 and about.purpose[-1] != "."
    model = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert f"dpo_sd15_small  (dpo, {model})" in text
    assert len(RECIPES) == text.count("Hardware: ")


def test_a_recipe_is_printed_as_it_is(capsys) -> None:
    assert cli.main(["recipes", "dpo_sd15_small"]) == 0
    assert capsys.readouterr().out == recipe_files.find("dpo_sd15_small").read_text()


def values(name: str) -> dict[str, Any]:
    return yaml.safe_load((recipe_files.folder() / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", ["dpo_sd15_small", "dpo_sdxl_small"])
def test_small_recipes_go_through_300_pairs_no_more_than_20_times(name: str) -> None:
    recipe = values(name)
    pairs = 300 * (1 - recipe["holdout"])
    visits = recipe["max_steps"] * recipe["batch_size"] * recipe["accumulate"]
    assert 10 < visits / pairs < 20
    assert 0.005 < recipe["lr"] * recipe["max_steps"] <= 0.02, "as far as 2,000 steps of 1e-5 go, or less"


def test_values_of_other_latents_are_converted() -> None:
    """Means over D numbers stand for sums: SD1.5 has 16,384, SDXL 65,536, the small model 256."""
    assert values("dpo_small_model")["beta"] == round(5000 * 256 / 16384)
    small, large = values("dense_sd15"), values("dense_sdxl")
    assert large["temperature"] == 4 * small["temperature"] and large["clip"] == small["clip"] / 4
    assert (
        large["gamma"] == pytest.approx(small["gamma"] ** 2)
        and large["num_inference_steps"] == small["num_inference_steps"] / 2
    )
