"""rewards/README.md runs as printed, and docs/rewards.md knows every name."""

import re
from pathlib import Path

import pytest
from PIL import Image

import rewards
from scripts import reward_table

ROOT = Path(__file__).resolve().parents[2]


def test_the_blocks_of_the_readme_run_in_order(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (64, 48), colour).save(name)
    text = (ROOT / "rewards" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 9
    space: dict[str, object] = {}
    for block in blocks:
        exec(block, space)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["image", "prompt", "toy-clip", "saturation"]
    assert lines[1].startswith("a.png  a red circle") and lines[2].startswith("b.png")
    assert lines[3] == "[1.0, 1.0]"  # the saturation of red and of blue
    assert "torch.Size([3]) torch.Size([1])" in lines
    assert lines[-2] == "0.5"


def test_the_table_has_every_name():
    text = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
    cells = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    named = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    assert not set(rewards.names()) - named, f"run {reward_table.COMMAND}"


def test_the_table_is_what_the_files_declare():
    page = reward_table.DOCS.read_text(encoding="utf-8")
    assert reward_table.replaced(page, reward_table.table()) == page, f"run {reward_table.COMMAND}"


def test_a_name_without_a_row_and_a_row_of_other_columns_say_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "rewards").mkdir()
    file = tmp_path / "rewards" / "blur.py"
    monkeypatch.setattr(reward_table, "ROOT", tmp_path)
    monkeypatch.setattr(rewards, "names", lambda: {"blur": "rewards.blur"})
    file.write_text("NAMES = {'blur': {}}\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"got no row for blur in TABLE of rewards.blur.py; .*; add \"blur\": "
    ):
        reward_table.table()
    file.write_text("TABLE = {'blur': 'none | all'}\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"got 2 cells for blur in TABLE of rewards.blur.py; expected weights"
    ):
        reward_table.table()
    file.write_text(
        "TABLE = {'blur': 'none | all | nothing | [0, 1] | yes | no weights'}\n", encoding="utf-8"
    )
    assert reward_table.table().endswith("| `blur` | none | all | nothing | [0, 1] | yes | no weights |\n")
