"""Journals of strangers and damaged ones: read, scored again, or refused on one line that names the file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rewards import Reward
from t2ialign.evaluation import monitor_journal
from t2ialign.evaluation.manifest_scores import score_manifest
from t2ialign.io import jsonl, manifest
from t2ialign.rewriting.files import from_row, to_row
from t2ialign.rewriting.rewriter import Rewritten
from t2ialign.scoring import output
from t2ialign.training.log import read_rows
from tests.cli.test_monitor_verb import FALLS, RISES, make

WRONG: list[Any] = [None, True, "x", [], [1], {}, {"a": 1}, 2**70, "\ud800"]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_monitor_s_files_are_read_or_refused(wrong: Any, tmp_path: Path) -> None:
    run = make(tmp_path / "run", {"clip": RISES, "trained": FALLS})
    about, scores = run / "monitor" / "about.json", run / "monitor" / "scores.jsonl"
    facts = json.loads(about.read_text(encoding="utf-8"))
    for key in facts:
        about.write_text(json.dumps({**facts, key: wrong}), encoding="utf-8")
        refused = 0
        try:
            monitor_journal.read(run)
        except ValueError as error:
            refused += 1
            assert "expected" in str(error)
        assert refused or isinstance(wrong, str | int | None)
    about.write_text(json.dumps(facts), encoding="utf-8")
    first, *rest = scores.read_text(encoding="utf-8").splitlines()
    row = json.loads(first)
    for key in ("step", "prompt", "seed", "scores", "statistics"):
        changed = [{**row, key: wrong}, {name: value for name, value in row.items() if name != key}]
        changed += [{**row, "scores": {**row["scores"], "clip": wrong}}]
        for other in changed if wrong is not True else ():
            scores.write_text("\n".join([json.dumps(other), *rest]), encoding="utf-8")
            try:
                journal = monitor_journal.read(run)
            except ValueError as error:
                assert "expected" in str(error)
            else:  # a row of another image: its step is not whole any more
                assert len(journal.steps) < len(RISES) or isinstance(wrong, str | int)


class Bright(Reward):
    """Fails on black images."""

    def score(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        if (images == 0).all(-1).all(-1).all(-1).any():
            raise KeyError("black")
        return images.mean((1, 2, 3))


def test_an_image_that_a_reward_fails_on_costs_its_row_alone(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    rows = [{"file": f"{number}.png", "prompt": "p", "seed": number} for number in range(3)]
    jsonl.append(tmp_path / manifest.NAME, rows)
    rendered, journal = manifest.read(tmp_path), tmp_path / "scores.jsonl"
    bad, *good = score_manifest(Bright(), "bright", rendered, journal)
    assert "got KeyError ('black') from Bright.score for 'p'" in bad["error"]
    assert [score["score"] for score in good] == pytest.approx([1 / 765, 2 / 765])
    with pytest.raises(ValueError, match="got KeyError"):
        score_manifest(Bright(), "bright", rendered[:1], tmp_path / "others.jsonl")
    kept = jsonl.read(journal)
    for wrong in WRONG:
        jsonl.rewrite(journal, [{**kept[1], "seed": [wrong]}, {**kept[2], "score": wrong}])
        assert score_manifest(Bright(), "bright", rendered, journal)[1:] == good or isinstance(wrong, int)


@pytest.mark.parametrize("wrong", [value for value in WRONG if not isinstance(value, str | int)])
def test_a_row_of_rewrites_is_whole_or_refused(wrong: Any) -> None:
    result = Rewritten(prompt="a", rewrite="b", thought="t", used="rewrite", reason=None)
    row = to_row(result, name="rules", seed=0)
    assert from_row(row) == result
    for key in ("prompt", "rewrite", "used", "tries", "lost", "dropped"):
        if not (wrong == [] and key in ("lost", "dropped")):
            with pytest.raises(ValueError, match="as a row of rewrites; expected it as it was written"):
                from_row({**row, key: wrong})


@pytest.mark.parametrize("row", ["3", "null", "[1]", '{"a": 1}', "{", '{"shard": {}}'])
def test_a_table_of_scores_is_whole_or_refused(row: str, tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    good = {"file": "a", "prompt": "p", "shard": 0, "row": 0, "clip": 1.0, "error": None}
    for lines in ([row], [json.dumps(good), row]):
        file.write_text("\n".join(lines), encoding="utf-8")
        if lines[0] == row or row in ("3", "null", "[1]", "{"):
            with pytest.raises(ValueError, match="expected"):
                output.read(file)


def test_metrics_are_numbers(tmp_path: Path) -> None:
    rows = '{"step": 1, "loss": "x", "a": 2}\n{"step": []}\n{"step": 2, "a": 2}\n[\n'
    (tmp_path / "m.jsonl").write_text(rows, encoding="utf-8")
    assert read_rows(tmp_path / "m.jsonl") == [{"step": 2, "a": 2}]
