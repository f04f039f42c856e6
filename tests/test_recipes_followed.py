"""The recipes of CONTRIBUTING.md are followed literally, in a copy of the repository.

Of each section: a code block below "Write `path`" or "Write the recipe `path`" is that file, one below "Add
its row to `page`, below that of `name`" is a line there, and `sh` blocks are commands, all in this order.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COPIED = ("t2ialign", "rewards", "scripts", "tests", "docs", "proofs")
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.M | re.S)
RECIPES: list[str] = re.findall(r"^## (Add .+)$", TEXT, re.M)

pytestmark = pytest.mark.rest


@dataclass(frozen=True)
class Step:
    """A code block: its language, its lines, and the paragraphs between it and the block before."""

    language: str
    code: str
    before: str


def steps(title: str) -> list[Step]:
    section = TEXT.partition(f"## {title}\n")[2].partition("\n## ")[0]
    found, end = [], 0
    for match in BLOCK.finditer(section):
        found.append(Step(match[2], textwrap.dedent(match[3]), section[end : match.start()]))
        end = match.end()
    return found


def copy_of_the_repository(folder: Path) -> Path:
    """Code, tests and pages are copied, since recipes add to them; assets are only read."""
    ignored = shutil.ignore_patterns("__pycache__", "soak*")
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for file in ROOT.iterdir():
        if file.is_file() and not file.name.startswith("."):
            shutil.copy(file, folder / file.name)
    (folder / "assets").symlink_to(ROOT / "assets")
    return folder


def files_of(step: Step) -> list[Path]:
    """The file that a block is to be written to, if it is one."""
    return [Path(name) for name in re.findall(r"[Ww]rite (?:the recipe )?`([\w./]+)`", step.before)]


def follow(step: Step, root: Path) -> None:
    if step.language == "sh":
        for line in step.code.splitlines():
            run(line, root)
    elif row := re.search(
        r"Add its row to `([\w./]+)`, below that of `(\w+)`", " ".join(step.before.split())
    ):
        page = root / row[1]
        lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
        (place,) = [i for i, line in enumerate(lines) if line.startswith("| ") and f"`{row[2]}`" in line]
        page.write_text("".join([*lines[: place + 1], step.code, *lines[place + 1 :]]), encoding="utf-8")
    else:
        (name,) = files_of(step)
        assert not (root / name).exists(), f"{name} is there: a recipe adds files and changes none"
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(step.code, encoding="utf-8")


def run(line: str, root: Path) -> None:
    """A command of the page; `python -c` would be no recipe."""
    program, *words = shlex.split(line)
    start = {"python": [sys.executable], "t2ialign": [sys.executable, "-m", "t2ialign"]}[program]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([*start, *words], cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def pairs_of_the_demo(root: Path) -> None:
    """What `make demo` leaves for `dpo_toy`, small: renders of captions and of near misses."""
    from scripts.experiments import labelled_pairs

    captions = ["a red circle", "two blue squares", "a green cross", "a small yellow circle"]
    labelled_pairs.rendered(root / "runs" / "demo" / "pairs", captions, 3, seed=0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return copy_of_the_repository(tmp_path)


@pytest.mark.parametrize("title", RECIPES)
def test_the_recipe_works_as_printed(title: str, root: Path) -> None:
    pairs_of_the_demo(root)
    followed = steps(title)
    assert {"python", "sh"} <= {step.language for step in followed}
    for step in followed:
        follow(step, root)
    written = [str(name) for step in followed for name in files_of(step) if name.suffix == ".py"]
    run(f"python -m ruff check {' '.join(written)}", root)
    run(f"python -m ruff format --check {' '.join(written)}", root)


def test_every_kind_of_extension_has_a_recipe() -> None:
    assert {"Add a reward", "Add an objective", "Add a method", "Add a model family"} <= set(RECIPES)


def test_a_command_that_fails_fails_the_recipe(root: Path) -> None:
    with pytest.raises(AssertionError, match="no_such_module"):
        run("python -m no_such_module", root)
