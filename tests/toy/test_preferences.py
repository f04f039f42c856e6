"""Pairs come from one prompt each, a pass against a fail, and never from a prompt without both."""

import json
from pathlib import Path

import pytest
from PIL import Image

from t2ialign.io import jsonl, manifest
from t2ialign.toy.preferences import PER_PROMPT, pair_up, write_pairs
from t2ialign.toy.render import render


def test_pairs_are_within_a_prompt() -> None:
    prompts = ["a", "a", "a", "b", "b", "c", "c"]
    passed = [True, False, False, True, True, False, False]
    assert pair_up(prompts, passed) == [(0, 1), (0, 2)]  # b always passes, c always fails


def test_an_easy_prompt_is_not_most_of_the_data() -> None:
    prompts, passed = ["a"] * 20, [True] * 19 + [False]
    pairs = pair_up(prompts, passed)
    assert len(pairs) == PER_PROMPT and {lose for _, lose in pairs} == {19}
    assert len({win for win, _ in pairs}) == PER_PROMPT


def test_write_pairs_judges_with_the_oracle(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    prompt, shown = "a red circle", ["a red circle", "a blue square", "a red circle"]
    for i, pixels in enumerate(render(shown, 0)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    rows = [{"file": f"{i}.png", "prompt": prompt, "seed": i} for i in range(3)]
    jsonl.append(folder / manifest.NAME, rows)
    assert write_pairs(folder, tmp_path / "pairs.jsonl") == 2
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [line["rejected"] for line in lines] == ["samples/1.png"] * 2
    assert {line["chosen"] for line in lines} == {"samples/0.png", "samples/2.png"}


def test_nothing_to_learn_from_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    Image.fromarray(render(["a red circle"], 0)[0]).save(folder / "0.png")
    jsonl.append(folder / manifest.NAME, [{"file": "0.png", "prompt": "a red circle", "seed": 0}])
    with pytest.raises(ValueError, match="both a passing and a failing image"):
        write_pairs(folder, tmp_path / "pairs.jsonl")
