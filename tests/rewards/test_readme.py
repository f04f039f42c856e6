"""rewards/README.md runs as printed, and docs/rewards.md knows every name."""

import re
from pathlib import Path

from PIL import Image

import rewards

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
    assert lines[0].split() == ["image", "prompt", "shapes-clip", "saturation"]
    assert lines[1].startswith("a.png  a red circle") and lines[2].startswith("b.png")
    assert lines[3] == "[1.0, 1.0]"  # the saturation of red and of blue
    assert "torch.Size([3]) torch.Size([1])" in lines
    assert lines[-2] == "0.5"


def test_the_table_has_every_name():
    text = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
    cells = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    named = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    assert not set(rewards.names()) - named
