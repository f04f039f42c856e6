"""What the release before wrote is gone on with: its files name the toy model and its rewards otherwise."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rewards import renamed
from t2ialign import config, peers
from t2ialign.cli import main as cli
from t2ialign.cli.train import settings_of
from t2ialign.evaluation.monitor_journal import Journal
from t2ialign.rewriting.files import journal_of
from t2ialign.tasks.demo.settings import Settings, claim
from t2ialign.training.output import check_same_run

SAMPLE = ["sample", "a red circle", "--num-inference-steps", "1", "--guidance-scale", "1"]


def as_before(*files: Path) -> None:
    """Write the names of the release before into files of JSON."""
    for file in files:
        text = file.read_text(encoding="utf-8")
        former = re.sub(r'"toy\b', '"shapes', text)
        assert former != text, file
        file.write_text(former, encoding="utf-8")


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*SAMPLE, "--model", "toy", "--output", "smp"]) == 0
    return tmp_path / "smp"


def test_samples(samples):
    as_before(samples / "manifest.jsonl")
    image = (samples / "00000.png").stat().st_mtime_ns
    words = [*SAMPLE, "a blue square", "--model", "shapes", "--output", "smp", "--resume", "latest"]
    assert cli.main(words) == 0
    rows = [json.loads(line) for line in (samples / "manifest.jsonl").open(encoding="utf-8")]
    assert [row["model"] for row in rows] == ["toy", "toy"]
    assert (samples / "00000.png").stat().st_mtime_ns == image


def test_scores(samples, capsys):
    words = ["score", "smp", "--rewards", "toy-oracle,saturation", "-o", "scores.csv"]
    assert cli.main(words) == 0
    table, journal = samples.parent / "scores.csv", samples.parent / "scores.csv.journal.jsonl"
    before = table.read_text(encoding="utf-8")
    as_before(journal)
    rows = journal.read_text(encoding="utf-8")
    for name in ("shapes-oracle", "toy-oracle"):
        words[3] = f"{name},saturation"
        assert cli.main([*words, "--resume", "latest"]) == 0
        assert table.read_text(encoding="utf-8") == before
    assert journal.read_text(encoding="utf-8") == rows, "nothing was scored again"
    assert cli.main([*words[:3], "toy-clip,saturation", *words[4:], "--resume", "latest"]) == 2
    assert "expected the same" in capsys.readouterr().err


def test_an_evaluation(samples):
    words = ["evaluate", "smp", "--reward", "toy-oracle"]
    assert cli.main(words) == 0
    as_before(samples / "scores.jsonl", samples / "evaluation_of.json")
    assert cli.main([*words, "--resume", "latest"]) == 0
    (row,) = (json.loads(line) for line in (samples / "scores.jsonl").open(encoding="utf-8"))
    assert row["reward"] == "toy-oracle"
    as_before(samples / "scores.jsonl", samples / "evaluation_of.json")
    assert cli.main(["evaluate", "smp", "--reward", "toy-clip", "--resume", "latest"]) == 2


def test_rewrites(tmp_path):
    output = tmp_path / "rewrites.jsonl"
    row = {"prompt": "a crimson disc", "thought": None, "rewrite": "a red circle", "used": "rewrite"}
    row |= {"reason": None, "fallback": None, "lost": [], "dropped": [], "tries": 1, "seed": 0}
    row["rewriter"] = "shapes tries=2 longest=80"
    journal_of(output).write_text(json.dumps(row) + "\n", encoding="utf-8")
    words = ["rewrite", "a crimson disc", "--rewriter", "toy", "-o", str(output)]
    assert cli.main([*words, "--resume", "latest"]) == 0
    (row,) = (json.loads(line) for line in output.open(encoding="utf-8"))
    assert (row["rewriter"], row["thought"]) == ("toy tries=2 longest=80", None), "it was not asked again"


def test_a_checkpoint(tmp_path):
    (tmp_path / "toy_prompts.txt").write_text("a\n", encoding="utf-8")
    prompts = f"prompts={tmp_path / 'toy_prompts.txt'}"
    words = [prompts, "reward=toy-clip", "monitor_prompts=b", "monitor_rewards=toy-clip-b", "model=toy"]
    cfg = config.load(settings_of("backprop"), None, [*words, f"output={tmp_path}"])
    saved = json.loads(re.sub(r'\btoy(?=[-_"])', "shapes", cfg.model_dump_json()))
    former = {today: name for name, today in peers.FORMER.items()}
    saved = {former.get(key, key): value for key, value in saved.items()}
    assert {"guidance", "num_steps", "monitor_guidance"} < saved.keys()
    check_same_run({"config": saved, "global_batch": 4}, cfg, 4)
    with pytest.raises(ValueError, match=r"guidance_scale=3\.0 on resume; expected"):
        other = config.load(type(cfg), None, [*words, f"output={tmp_path}", "guidance_scale=3"])
        check_same_run({"config": saved, "global_batch": 4}, other, 4)


def test_a_monitor(tmp_path):
    about = {"method": "backprop", "model": "shapes", "trained": "shapes-clip", "embedding": "shapes-clip-b"}
    about |= {"prompts": ["shapes"], "images": 1, "steps": 2, "guidance": 1.0}
    row = {"step": 0, "prompt": "shapes", "seed": 0, "file": "a.png", "statistics": {}}
    folder = tmp_path / "monitor"
    folder.mkdir()
    (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")
    scores = {"trained": 0.5, "shapes-clip-b": 0.25}
    (folder / "scores.jsonl").write_text(json.dumps({**row, "scores": scores}) + "\n", encoding="utf-8")
    journal = Journal(tmp_path)
    assert journal.heldout() == ["toy-clip-b"] and journal.about["prompts"] == ["shapes"]
    assert [journal.about[key] for key in ("model", "trained", "embedding")] == [
        "toy",
        "toy-clip",
        "toy-clip-b",
    ]


def test_prompts_that_ship_beside_the_recipes(tmp_path):
    file = tmp_path / "saved.yaml"
    file.write_text(f"prompts: {tmp_path / 'shapes_prompts.txt'}\nreward: toy-clip\n", encoding="utf-8")
    (tmp_path / "toy_prompts.txt").write_text("a red circle\n", encoding="utf-8")
    renamed.warn.cache_clear()
    cls = settings_of("backprop")
    assert config.load(cls, file).prompts == str(tmp_path / "toy_prompts.txt")
    file.write_text("prompts: shapes_prompts.txt\nreward: toy-clip\n", encoding="utf-8")
    assert config.load(cls, file, folders=(tmp_path,)).prompts == str(tmp_path / "toy_prompts.txt")


def test_a_demo_of_one_round_is_not_mixed_with_one_of_several(tmp_path):
    before = {"seed": 0, "gamma": 0.9, "num_steps": 20, "max_steps": 700, "steps": 20, "guidance": 2.0}
    (tmp_path / "settings.json").write_text(json.dumps({**before, "tree": "0"}), encoding="utf-8")
    with pytest.raises(ValueError, match="a demo with another rounds, prompts_per_round"):
        claim(tmp_path, 0, Settings())
    assert [file.name for file in tmp_path.iterdir()] == ["settings.json"]
