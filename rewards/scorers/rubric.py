"""The question of HPSv3: a rubric with the prompt in it, and the token at which the answer is read."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

TOKEN = "<|Reward|>"
"""The special token whose state the head reads."""

RUBRIC = (
    "Rate how well people would like this generated picture, looking at two things.\n"
    "Quality: are bodies, objects and light plausible, is it sharp, is there detail, is it well composed, "
    "is it free of harmful content?\n"
    "Agreement with the text: are the subjects, their number and attributes, the action, the place and the "
    "style as described?\n"
    "The text: {text_prompt}\n"
    f"The rating: {TOKEN}"
)
"""Our own words, for a head to be trained on; the released one was trained on the authors'."""

PUBLISHED = "f6ee57479d4e9eee76b49c00dc962e1e696a5a2b3cc32cebd9b1fa76fe27502c"
"""SHA-256 of the authors' instruction and its ending, out of `hpsv3/dataset/data_collator_qwen.py`."""

LITERALS = ("INSTRUCTION", "prompt_with_special_token")


def read_rubric(source: str | Path | None) -> str:
    """The text in a .txt file, or the authors' two texts out of their .py, which is parsed and not run.

    Raises ValueError without a file, and for a text without {text_prompt} or the reward token.
    """
    if source is None or not Path(source).is_file():
        raise ValueError(
            f"got rubric {source} for HPSv3; expected the file of the text its head was trained on; pass "
            "rubric=data_collator_qwen.py of github.com/MizzenAI/HPSv3 (in hpsv3/dataset), which is only read"
        )
    text = Path(source).read_text(encoding="utf-8")
    if Path(source).suffix == ".py":
        text = _literals(text, source)
    if "{text_prompt}" not in text or text.count(TOKEN) != 1:
        raise ValueError(f"got {source}; expected a text with {{text_prompt}} and one {TOKEN}; add them")
    return text


def published(rubric: str) -> bool:
    """Whether this is the text that the released head was trained on."""
    return hashlib.sha256(rubric.encode()).hexdigest() == PUBLISHED


def _literals(code: str, source: str | Path) -> str:
    literals: dict[str, str] = {}
    for node in ast.parse(code).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            literals.update({name: str(node.value.value) for name in names})
    if not literals.keys() >= set(LITERALS):
        raise ValueError(f"got {source}; expected a file that defines {' and '.join(LITERALS)}; check it")
    return "".join(literals[name] for name in LITERALS)
