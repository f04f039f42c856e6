"""A leading ~ is the home folder in every setting and every argument, whoever reads it."""

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from t2ialign.cli.main import VERBS, Parser, main
from t2ialign.config import Config, load, members
from t2ialign.data.pairs import read_pairs
from t2ialign.io.paths import expand, expand_word, path
from t2ialign.training.methods import methods, settings_of

GIVEN = "~/some where/x"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "text", ["~", "a ~/x", "./~/x", "http://host/~me/x", "~ 3 cats", "~nobody-here/x", ""]
)
def test_other_text_stays_as_it_is(text):
    assert expand(text) == expand_word(text) == text


def test_what_holds_paths_is_expanded_within(home):
    assert expand({"a": ["~/x", 1], "b": ("~/y", None), "c": Path("~/z")}) == {
        "a": [f"{home}/x", 1],
        "b": (f"{home}/y", None),
        "c": home / "z",
    }


@pytest.mark.parametrize(
    "before", ["", "-o", "--output=", "weights=", "reward_options.path=", "hpsv2:weights="]
)
def test_a_path_begins_a_word_or_follows_its_key(home, before):
    assert expand_word(f"{before}~/x") == f"{before}{home}/x"


def test_of_a_list_in_one_word_every_path(home):
    assert expand_word("--rewards=hpsv2,~/a,~/b") == f"--rewards=hpsv2,{home}/a,{home}/b"


def test_a_row_of_a_table_may_name_an_image_below_the_home_folder(home):
    folder, table = home / "some where", home / "elsewhere" / "pairs.jsonl"
    folder.mkdir()
    table.parent.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    row = {"prompt": "p", "chosen": "~/some where/a.png", "rejected": "~/some where/b.png"}
    table.write_text(json.dumps(row) + "\n")
    (record,) = read_pairs(str(table))
    assert {record.win, record.lose} == {folder / "a.png", folder / "b.png"}
    table.write_text(json.dumps({"prompt": "a red circle", "file": "~/some where/a.png"}) + "\n")
    argv = ["score", "~/elsewhere/pairs.jsonl", "--rewards=toy-oracle", "--output=~/scores.jsonl"]
    assert main([*argv, "--workers=0"]) == 0
    assert json.loads((home / "scores.jsonl").read_text())["toy-oracle"] == 0


def test_the_type_for_scripts(home):
    assert path("~/x") == home / "x" and path("x") == Path("x")


def strings(value: Any) -> list[str]:
    """All text and paths in a value."""
    if isinstance(value, list | tuple):
        return [text for item in value for text in strings(item)]
    return [str(value)] if isinstance(value, str | Path) else []


def words(action: argparse.Action, *, joined: bool) -> list[str]:
    """The option with ~/... for its value, or what else it takes; nothing for a flag."""
    if action.nargs == 0:
        return []
    value = "1" if action.type in (int, float) else next(iter(action.choices or ()), GIVEN)
    count = action.nargs if isinstance(action.nargs, int) else 1
    if not action.option_strings:
        return [str(value)] * count
    flag = action.option_strings[-1]
    return [f"{flag}={value}"] if joined and count == 1 else [flag, *[str(value)] * count]


@pytest.mark.parametrize("joined", [False, True], ids=["--option ~/x", "--option=~/x"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_argument_of_every_verb(home, verb, joined):
    parser = Parser(prog=verb, conflict_handler="resolve")
    importlib.import_module(f"t2ialign.cli.{verb}").add_arguments(parser)
    actions = parser._actions
    options = [word for a in actions if a.option_strings for word in words(a, joined=joined)]
    positionals = [word for a in actions if not a.option_strings for word in words(a, joined=joined)]
    argv = [*positionals, *options]
    given = [text for value in vars(parser.parse_intermixed_args(argv)).values() for text in strings(value)]
    assert not [text for text in given if "~" in text]
    assert sum(text == f"{home}/some where/x" for text in given) == sum(GIVEN in word for word in argv) > 0


def configs() -> list[type[Config]]:
    return [settings_of(name) for name in methods()]


@pytest.mark.parametrize("config", configs(), ids=lambda config: config.__module__.rpartition(".")[2])
def test_every_setting_of_every_trainer(home, config, tmp_path):
    """Given in a recipe, as an override and in Python: text, paths, lists of text, options of a reward."""
    values = {str: GIVEN, Path: GIVEN, tuple[str, ...]: [GIVEN], dict[str, Any]: {"path": GIVEN}}
    wanted = {
        name: values[kind]
        for name, field in config.model_fields.items()
        for kind in values
        if kind in members(field.annotation)
    }
    assert {"output"} < set(wanted)
    (tmp_path / "recipe.yaml").write_text("".join(f"{name}: {value}\n" for name, value in wanted.items()))
    overrides = [f"{name}={value}" for name, value in wanted.items() if not isinstance(value, dict)]
    overrides += [f"{name}.path={GIVEN}" for name, value in wanted.items() if isinstance(value, dict)]
    for settings in (
        config(**wanted),
        load(config, tmp_path / "recipe.yaml"),
        load(config, None, overrides),
    ):
        for name in wanted:
            value = getattr(settings, name)
            value = list(value.values()) if isinstance(value, dict) else value
            assert strings(value) == [f"{home}/some where/x"], name
