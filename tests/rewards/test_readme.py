"""rewards/README.md runs as printed, and docs/rewards.md knows every name."""

import re
from pathlib import Path

import rewards

ROOT = Path(__file__).resolve().parents[2]


def test_the_blocks_of_the_readme_run_in_order(capsys):
    text = (ROOT / "rewards" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 7
    space: dict[str, object] = {}
    for block in blocks:
        exec(block, space)
    lines = capsys.readouterr().out.splitlines()
    assert "torch.Size([3]) torch.Size([1])" in lines
    assert lines[-2] == "0.5"


def test_the_table_has_every_name():
    text = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
    cells = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    named = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    assert not set(rewards.names()) - named
