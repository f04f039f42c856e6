"""How long the first answer takes: imports, `--help`, and the names of rewards."""

import ast
import subprocess
import sys
import time

import pytest

import rewards
from rewards import declared
from t2ialign.cli.main import VERBS
from t2ialign.training.methods import methods

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "peft", "scipy", "sklearn", "open_clip"}
HEAVY |= {"ray", "pandas", "pyarrow", "matplotlib"}

LOADED = """
import sys
from t2ialign.cli.main import main
for words in {commands!r}:
    try:
        main([*words, "--help"])
    except SystemExit:
        pass
    loaded = {heavy!r} & {{name.split(".")[0] for name in sys.modules}}
    assert not loaded, (words, loaded)
"""


def fresh(*words: str) -> subprocess.CompletedProcess[str]:
    """A Python process that must succeed."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def fastest(limit: float, *words: str) -> float:
    """Seconds of the fastest of at most five processes; a machine under load may slow some of them."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        fresh(*words)
        best = min(best, time.perf_counter() - start)
        if best < limit:
            break
    return best


def test_no_help_imports_a_library_of_models():
    commands = [[], *([verb] for verb in VERBS), *(["train", method] for method in methods())]
    assert ["train", "dpo"] in commands and ["score"] in commands
    fresh("-c", LOADED.format(commands=commands, heavy=HEAVY))


@pytest.mark.parametrize("method", methods())
def test_the_settings_of_a_method_are_listed_at_once(method):
    assert fastest(0.7, "-m", "t2ialign", "train", method, "--help") < 0.7


@pytest.mark.parametrize("package", ["t2ialign", "rewards"])
def test_importing_a_package_imports_no_library(package):
    empty = fastest(0.01, "-c", "pass")
    assert fastest(empty + 0.2, "-c", f"import {package}") < empty + 0.2
    fresh("-c", f"import sys, {package}; assert not {HEAVY | {'numpy', 'pydantic'}!r} & set(sys.modules)")


def test_the_names_of_rewards_are_read_once_a_process(monkeypatch):
    """Every file below rewards/ is parsed for its names the first time, and no file after that."""
    parsed, parse = [], ast.parse
    monkeypatch.setattr(declared.ast, "parse", lambda text, *more: parsed.append(text) or parse(text, *more))
    declared._served.cache_clear()
    first = rewards.names()
    once = len(parsed)
    assert first["toy-clip"] and once > 10
    first.clear()  # a copy: what a caller does to it changes nothing
    assert rewards.names()["toy-clip"]
    rewards.load("saturation")
    rewards.load("toy-oracle")
    assert len(parsed) == once
