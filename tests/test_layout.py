"""Where files lie and what they are called: small folders, and no module that hides a public function."""

import ast
import re
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

import rewards

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    file.relative_to(ROOT)
    for top in ("rewards", "t2ialign", "scripts", "tests")
    for file in sorted((ROOT / top).rglob("*.py"))
]
CODE = [file for file in FILES if file.parts[0] != "tests"]
PACKAGES = [file for file in CODE if file.name == "__init__.py"]
MOST = 25


def test_a_folder_holds_few_files():
    count = Counter(file.parent.as_posix() for file in FILES)
    crowded = {folder: files for folder, files in count.items() if files > MOST}
    assert not crowded, f"group the files of {crowded} by what they are about"


def functions(file: Path) -> set[str]:
    """Names of the public functions that a file defines at its top level."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    body = ast.parse((ROOT / file).read_text()).body
    return {node.name for node in body if isinstance(node, kinds) and not node.name.startswith("_")}


def exported(package: Path) -> set[str]:
    """Public names of a package: what its __init__ defines, imports, or lists in `__all__`."""
    names = functions(package)
    for node in ast.parse((ROOT / package).read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names |= set(ast.literal_eval(node.value))
    return names


def top_of(node: ast.ImportFrom) -> str:
    """The top package that an import is from."""
    return (node.module or "").split(".")[0]


def modules_in(package: Path) -> set[str]:
    """Names of the files and folders of a package, which are attributes of it once they are imported."""
    files = {file.stem for file in CODE if file.parent == package.parent and file.name != "__init__.py"}
    return files | {file.parent.name for file in PACKAGES if file.parent.parent == package.parent}


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_no_module_hides_a_public_name_of_its_package(package):
    """`rewards.score` is a function: a file rewards/score.py would replace it when it is first imported."""
    assert not exported(package) & modules_in(package)


def public_functions(top: str) -> set[str]:
    """The functions that users import from a top package: `rewards.NAME` or `t2ialign.NAME`."""
    return {name for name in import_module(top).__all__ if name.islower()}


@pytest.mark.parametrize("top", ["rewards", "t2ialign"])
def test_no_module_carries_the_name_of_a_public_function(top):
    """Nor anywhere below the package: "score" said of t2ialign is the function alone.

    The commands are exempt: t2ialign/cli/score.py is `t2ialign score`.
    """
    below = [file for file in CODE if file.parts[0] == top and file.parts[1] != "cli"]
    taken = public_functions(top)
    clashes = [file.as_posix() for file in below if taken & {file.stem, file.parent.name}]
    assert not clashes, "name the file after what it is about"


def test_only_packages_export_what_others_define():
    """One import path a name, and a shorter one for those that the documentation shows."""
    tops = {Path(name, "__init__.py") for name in ("rewards", "t2ialign", "t2ialign/api")}
    lists = {
        file
        for file in CODE
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.Name) and node.id == "__all__"
    }
    assert lists <= tops
    inner = [
        file
        for file in PACKAGES
        if file not in tops
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ("rewards", "t2ialign")
    ]
    assert not inner, "import from the module that defines it"


def test_the_documentation_shows_every_name_that_rewards_exports():
    text = (ROOT / "rewards" / "README.md").read_text(encoding="utf-8")
    assert [name for name in rewards.__all__ if f"rewards.{name}" not in text] == []


PAGES = [
    Path("README.md"),
    Path("rewards/README.md"),
    *sorted(p.relative_to(ROOT) for p in (ROOT / "docs").glob("*.md")),
]
NAMED = re.compile(r"(?<![\w./-])((?:t2ialign|rewards|scripts|tests|docs|assets)/[\w./-]*\w/?)")
SHIPPED = "t2ialign/recipes"
"""A folder of wheels alone."""


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_names_files_that_exist(page):
    """Capital letters stand for a name: t2ialign/cli/VERB.py."""
    names = set(NAMED.findall((ROOT / page).read_text(encoding="utf-8"))) - {SHIPPED}
    missing = {name for name in names if not (ROOT / name).exists() and not re.search(r"\b[A-Z]{3,}\b", name)}
    assert not missing


def test_the_loss_of_dpo_is_two_steps_from_the_readme():
    """The README links the file, and the file has the loss."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](t2ialign/methods/dpo/loss.py)" in text
    assert "reference_loss" in functions(Path("t2ialign/methods/dpo/loss.py"))
