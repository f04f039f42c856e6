"""A row is stale when a file that its run loaded has changed, and not when another has."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rewards
from rewards import assets
from t2ialign.cli import prove
from t2ialign.evaluation import provenance
from t2ialign.evaluation.provenance import LoadedFiles, changed_files, source_hash

ROOT = Path(__file__).resolve().parents[2]
TREE = "0" * 16
"""Of code that is not today's."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of some of the project's files, which a test may change."""
    for name in (
        "t2ialign/config.py",
        "t2ialign/peers.py",
        "rewards/base.py",
        "scripts/experiments/claim.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "t2ialign")
    monkeypatch.setattr(provenance, "SCRIPTS", tmp_path / "scripts")
    monkeypatch.setattr(rewards, "__file__", str(tmp_path / "rewards" / "__init__.py"))
    return tmp_path


def recorded(project: Path) -> dict[str, str]:
    """The record of a run that loaded the settings and the claim, and neither peers.py nor base.py."""
    return {
        name: str(provenance._hash(project / name))
        for name in ("t2ialign/config.py", "scripts/experiments/claim.py")
    }


def row(**changes: object) -> dict:
    return {"number": 1, "verdict": "holds", "tree": TREE, "claim": "heads win", **changes}


def why(files: dict[str, str]) -> str | None:
    return prove.stale(row(), {"1": {"tree": TREE, "files": files}})


def test_a_changed_file_that_was_not_loaded_leaves_a_row_fresh(project: Path) -> None:
    files = recorded(project)
    for name in ("t2ialign/peers.py", "rewards/base.py"):
        (project / name).write_text("x = 1", encoding="utf-8")
    (project / "t2ialign" / "new.py").write_text("x = 1", encoding="utf-8")
    assert source_hash() != TREE and why(files) is None


def test_a_changed_file_that_was_loaded_makes_a_row_stale(project: Path) -> None:
    files = recorded(project)
    (project / "scripts/experiments/claim.py").write_text("x = 1", encoding="utf-8")
    assert why(files) == "measured on another scripts/experiments/claim.py; expected today's"
    assert changed_files(files) == ["scripts/experiments/claim.py"]


def test_a_file_that_is_gone_makes_a_row_stale(project: Path) -> None:
    files = recorded(project)
    (project / "t2ialign/config.py").unlink()
    assert why(files) == "measured on another t2ialign/config.py; expected today's"


def test_a_row_without_a_record_is_judged_by_all_code() -> None:
    assert prove.stale(row(tree=source_hash()), {}) is None
    assert f"measured on code {TREE}" in str(prove.stale(row(), {}))
    of_another_run = {"1": {"tree": "1" * 16, "files": {"t2ialign/config.py": "1"}}}
    assert f"measured on code {TREE}" in str(prove.stale(row(), of_another_run))
    assert prove.stale(row(tree=source_hash(), verdict="not tested"), {}) == "it was not tested"


def test_modules_opened_data_and_whole_assets_are_recorded() -> None:
    """In a process of its own, where nothing else is loaded."""
    code = (
        "import json\n"
        "from t2ialign.evaluation.provenance import LoadedFiles\n"
        "loaded = LoadedFiles()\n"
        "from pathlib import Path\n"
        "from rewards import assets\n"
        "json.loads((assets.folder('toy-clip') / 'config.json').read_text())\n"
        "Path('scripts/configs/dpo_toy.yaml').resolve().read_text()\n"
        "print(json.dumps(loaded.hashes()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    files = json.loads(done.stdout)
    assert {"t2ialign/evaluation/provenance.py", "rewards/assets.py"} <= set(files)
    assert {"assets/toy-clip/model.safetensors", "scripts/configs/dpo_toy.yaml"} <= set(files)
    assert not any("toy-clip-b" in name or "__pycache__" in name for name in files)
    assert "t2ialign/models/load.py" not in files and len(files) < 30
    assert changed_files(files) == []


def test_a_file_outside_of_the_project_is_not_recorded(tmp_path: Path) -> None:
    loaded = LoadedFiles()
    (tmp_path / "notes.txt").write_text("a", encoding="utf-8")
    assert assets.root().is_dir() and not any("notes.txt" in name for name in loaded.hashes())
