"""The distribution: what it declares, what the wheel carries, and that both work outside the checkout."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = sorted(p for name in ("t2ialign", "rewards", "scripts") for p in (ROOT / name).rglob("*.py"))
# Imported here, and required by what we declare (datasets, jinja2, transformers). Extras are asked for when
# they are missing.
BROUGHT = {"fsspec", "markupsafe", "pyarrow", "tokenizers", "huggingface_hub"}
EXTRAS = {"xformers", "bitsandbytes", "wandb", "trl", "gradio", "ray", "rapidocr"}
RENAMED = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "open_clip": "open_clip_torch"}


def imports(file: Path) -> set[str]:
    """Top-level names that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_assert_says_what_broke(file: Path) -> None:
    tree = ast.walk(ast.parse(file.read_text()))
    silent = [node.lineno for node in tree if isinstance(node, ast.Assert) and not node.msg]
    assert not silent, f"assert without message on lines {silent}"


def test_what_is_imported_is_declared() -> None:
    declared = {re.split(r"[<>=]", item)[0].strip() for item in PROJECT["project"]["dependencies"]}
    used = set().union(*map(imports, SOURCES)) - set(sys.stdlib_module_names)
    used -= {"t2ialign", "rewards", "scripts"}
    missing = {RENAMED.get(name, name) for name in used - BROUGHT - EXTRAS} - declared
    assert not missing, f"imported but not in pyproject.toml: {missing}"


def test_xformers_is_pinned_to_the_torch_it_was_built_for() -> None:
    assert PROJECT["project"]["optional-dependencies"]["xformers"] == ["xformers==0.0.35", "torch==2.10.*"]


def test_the_wheel_carries_both_packages_and_the_assets(tmp_path: Path) -> None:
    """Built as pip builds it, unpacked elsewhere, and used from a folder that is not the checkout."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0].split("-")[0] for name in names} == {"t2ialign", "rewards"}
    assert {"t2ialign/py.typed", "rewards/py.typed", "t2ialign/cli/main.py", "rewards/base.py"} <= set(names)
    templates = {p.name for p in (ROOT / "t2ialign" / "web" / "templates").iterdir()}
    assert {"page.html", "style.css", "page.js"} <= templates
    assert {f"t2ialign/web/templates/{name}" for name in templates} <= set(names)
    shipped = {p.relative_to(ROOT / "assets") for p in (ROOT / "assets").rglob("*") if p.is_file()}
    assert {f"rewards/assets/{p.as_posix()}" for p in shipped} <= set(names)
    recipes = {p.name for p in (ROOT / "scripts" / "configs").iterdir()}
    assert {f"t2ialign/recipes/{name}" for name in recipes} <= set(names)
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path / 'site')!r}]\n"
        "import rewards; from rewards import assets\n"
        "print(rewards.__file__); print(assets.root())\n"
        "from t2ialign.tasks import recipe_files as recipes; recipes.find('dpo_sd15_small')\n"
        "print(recipes.folder(), len(recipes.files()))\n"
        "from t2ialign.web.pages import render\n"
        "assert 'prefers-color-scheme' in render('page.html', title='a', lead='b')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    where, assets, shipped_recipes = done.stdout.splitlines()
    assert where == str(tmp_path / "site" / "rewards" / "__init__.py")
    assert assets == str(tmp_path / "site" / "rewards" / "assets")
    count = sum(name.endswith(".yaml") for name in recipes)
    assert shipped_recipes == f"{tmp_path / 'site' / 't2ialign' / 'recipes'} {count}"


@pytest.mark.rest
@pytest.mark.parametrize("words", [["prove"], ["prove", "demo"], ["prove", "demo", "--check"]])
def test_an_installed_wheel_says_in_one_line_that_prove_needs_the_repository(
    tmp_path: Path, words: list[str]
) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not {name for name in archive.namelist() if name.startswith(("scripts/", "tests/"))}
        archive.extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    # The checkout may be on the path of an editable install: the wheel comes first, and python -m adds "".
    done = subprocess.run(
        [sys.executable, "-m", "t2ialign", *words],
        cwd=tmp_path / "empty",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "an installed package has no experiments; expected a checkout of the repository" in line


def test_the_embedded_files_stay_small() -> None:
    weights = [p.stat().st_size for p in (ROOT / "assets").rglob("*.safetensors")]
    assert sum(weights) <= 30e6


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_install_says_which_python_it_needs(tmp_path: Path) -> None:
    """A machine whose only python3 is an old one: one line, and no half-made .venv."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python3").write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2"\nexit 1\n')
    (tools / "python3").chmod(0o755)
    for name in ("sh", "make"):
        (tools / name).symlink_to(shutil.which(name) or name)
    done = subprocess.run(
        [str(tools / "make"), "install"],
        cwd=tmp_path,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert lines == [
        "make: got Python 3.9.2; expected Python 3.11 or newer; install one and run "
        "make PYTHON=/path/to/python3.11"
    ]
    assert not (tmp_path / ".venv").exists()
