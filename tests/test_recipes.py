"""Every vetted recipe is a valid configuration, says how to run it, and differs from the defaults only."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from t2ialign import demo
from t2ialign.config import load
from t2ialign.data.prompts import read_prompts
from t2ialign.train import load_method, methods

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "scripts" / "configs").glob("*.yaml"))


def method_of(recipe: Path) -> str:
    return max((name for name in methods() if f"{recipe.stem}_".startswith(f"{name}_")), key=len)


def test_there_is_a_recipe_for_every_method_and_family() -> None:
    names = {recipe.stem for recipe in RECIPES}
    assert {
        "dpo_shapes",
        "dpo_sd15",
        "dpo_sdxl",
        "dense_shapes",
        "dense_sd15",
        "backprop_shapes",
        "backprop_sd15",
        "lrm_shapes",
        "lrm_sd15",
        "lpo_shapes",
        "lpo_sd15",
        "rewrite_sft_llm",
        "rewrite_grpo_sd15",
    } <= names
    assert {method_of(recipe) for recipe in RECIPES} <= set(methods())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_recipe_is_a_valid_configuration(recipe: Path) -> None:
    config = load(load_method(method_of(recipe)).Config, recipe)
    assert str(config.model_dump()["output"]) == f"runs/{recipe.stem}"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_recipe_begins_with_command_hardware_time_and_result(recipe: Path) -> None:
    text = recipe.read_text()
    found = re.findall(r"^# (Command|Hardware|Time|Result): +(.+)$", text, re.M)
    assert [name for name, _ in found] == ["Command", "Hardware", "Time", "Result"]
    path = recipe.relative_to(ROOT)
    assert f"{method_of(recipe)} -c {path}" in found[0][1]
    assert text.startswith("# Command:")


def test_the_shapes_recipe_trains_as_the_demo_does() -> None:
    recipe = yaml.safe_load((ROOT / "scripts" / "configs" / "dpo_shapes.yaml").read_text())
    settings = {key: value for key, value in recipe.items() if key not in ("model", "data", "output")}
    assert settings == {k: list(v) if isinstance(v, tuple) else v for k, v in demo.TRAINING.items()}


def test_prompts_of_the_shapes_recipe_hold_nothing_out_by_mistake() -> None:
    from rewards.shapes_captions import parse

    train, held = (
        read_prompts(ROOT / "scripts" / "configs" / f"{name}.txt")
        for name in ("shapes_prompts", "shapes_heldout_prompts")
    )
    assert not set(train) & set(held)
    assert {parse(prompt).category for prompt in train} == {parse(prompt).category for prompt in held}


def test_accelerate_adds_no_traceback_to_a_users_error() -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_processes", "1"]
    argv = [*launch, str(ROOT / "scripts" / "train.py"), "dop", "data=x"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1, "the launcher's own code, as docs/training.md says"
    assert "Traceback" not in done.stderr
    assert done.stderr.count("t2ialign: error: got method 'dop'") == 1


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_recipes_launch_quietly(recipe: Path) -> None:
    assert all("--quiet" in line for line in recipe.read_text().splitlines() if "accelerate launch s" in line)
    assert "accelerate launch scripts" not in recipe.read_text()


def test_make_clean_keeps_what_users_made() -> None:
    lines = (ROOT / "Makefile").read_text().partition("\nclean:\n")[2].splitlines()
    removed = [word for line in lines for word in line.split()]
    assert ".venv" in removed and not {"runs", "proofs", "assets"} & set(removed)


def test_the_launcher_is_the_verb() -> None:
    argv = [sys.executable, str(ROOT / "scripts" / "train.py"), "dop", "data=x", "beta=1"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("t2ialign: error: got method 'dop'; expected one of")
