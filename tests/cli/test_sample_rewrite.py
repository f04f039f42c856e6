"""t2ialign sample --rewrite and --best-of: what is rendered, what is judged, and runs that were cut."""

import argparse
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from t2ialign.cli import main as cli
from t2ialign.cli import sample as sample_verb
from t2ialign.io import jsonl, manifest
from t2ialign.models import load
from t2ialign.models.generate import generate
from t2ialign.models.load import load_policy
from t2ialign.rewriting import sampling
from t2ialign.rewriting.job import Job
from t2ialign.rewriting.load import choose
from t2ialign.tasks.candidates import candidates, default_reward, divergence, keep, load_reward, summary
from t2ialign.tasks.rewriters import rewriting_of
from tests.rewards.chat_server import ChatServer, says
from tests.rewriting.pages import links, words_of

PROMPTS = ["a red cat", "two cats"]
WRONG, RIGHT = "a blue square", "a red circle"


@pytest.fixture
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def sample(*argv: object) -> int:
    return cli.main(["sample", *map(str, argv)])


def fails(capsys, *argv: object) -> str:
    capsys.readouterr()
    assert sample(*argv) == 2
    return capsys.readouterr().err.splitlines()[-1]


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file)).astype(int)


def misled(request):
    """Greedily it writes what nobody asked for, and what was asked when it is sampled."""
    text = RIGHT if request["temperature"] else WRONG
    return 200, says(f"<think>as told</think><answer>{text}</answer>"), {}


@pytest.fixture(scope="module")
def rules(tiny_sd, tmp_path_factory):
    """A run of two prompts, two images each, rewritten by rules."""
    output = tmp_path_factory.mktemp("sample") / "rules"
    assert sample(*PROMPTS, *settings(tiny_sd, output), "--rewrite", "rules") == 0
    return output


def settings(model: Path, output: Path) -> list[object]:
    return ["-n", 2, "--seed", 5, "--model", model, "--num-inference-steps", 2, "--output", output]


def test_the_rewrite_is_rendered_and_the_prompt_is_the_user_s(rules, tiny_sd):
    rows = manifest.read(rules)
    texts = {row["prompt"]: row["rewrite"] for row in jsonl.read(rules / "rewrites.jsonl")}
    assert [row.prompt for row in rows] == [p for p in PROMPTS for _ in range(2)]
    assert [row.seed for row in rows] == [5, 6, 7, 8]
    assert [row.settings["rewritten"] for row in rows] == [texts[row.prompt] for row in rows]
    assert texts["a red cat"] == "a red cat, centered."  # what fits the 32 tokens of this model
    assert rows[0].settings["rewriter"] == f"rules intensity=medium tries=2 longest=80 fit={tiny_sd}"
    policy = load_policy(str(tiny_sd), device="cpu")
    said, meant = (
        generate(policy, [text], [5], num_inference_steps=2, guidance_scale=5.0)[0]
        .mul(255)
        .round()
        .permute(1, 2, 0)
        .numpy()
        for text in (texts["a red cat"], "a red cat")
    )
    found = pixels(rows[0].path)
    assert np.abs(found - said).max() <= 1 < np.abs(found - meant).max()


def test_other_verbs_judge_the_user_s_prompt(rules, tmp_path):
    output = tmp_path / "scores"
    reward = "tests.scoring.images:build_match"
    assert cli.main(["evaluate", str(rules), "--reward", reward, "--output", str(output)]) == 0
    assert {row["prompt"] for row in jsonl.read(output / "scores.jsonl")} == set(PROMPTS)
    table = tmp_path / "scores.jsonl"
    assert cli.main(["score", str(rules), "--rewards", reward, "-o", str(table), "--workers", "0"]) == 0
    assert {row["prompt"] for row in jsonl.read(table)} == set(PROMPTS)


def test_a_resumed_run_takes_its_rewrites_from_the_journal(tiny_sd, tmp_path, capsys, no_proxy):
    output = tmp_path / "out"
    with ChatServer(misled) as server:
        argv = [*PROMPTS[:1], *settings(tiny_sd, output), "--preset", "trained", "--url", server.url]
        assert sample(*argv, "--rewrite", "m") == 0
        before = {file.name: file.read_bytes() for file in output.iterdir()}
        (output / "00001.png").unlink()
        assert "expected a new or empty folder" in fails(capsys, *argv, "--rewrite", "m")
        assert sample(*argv, "--rewrite", "m", "--resume", "latest") == 0
        assert "got rewriter=" in fails(
            capsys, *PROMPTS[:1], *settings(tiny_sd, output), "--resume", "latest"
        )
    assert len(server.requests) == 1
    after = {file.name: file.read_bytes() for file in output.iterdir()}
    assert after.keys() == before.keys()
    for name, content in after.items():
        if name.endswith(".png"):  # sampled in another batch: the last bits differ, and may round otherwise
            pixels, were = (np.asarray(Image.open(io.BytesIO(each)), int) for each in (content, before[name]))
            assert np.abs(pixels - were).max() <= 1, name
        else:
            assert content == before[name], name


def test_a_refused_prompt_is_rendered_as_it_is_and_said(tmp_path, no_proxy):
    def answer(request):
        refused = request["messages"][-1]["content"] == PROMPTS[1]
        return (400, b"filtered", {}) if refused else (200, says("<answer>a red cat in fog</answer>"), {})

    with ChatServer(answer) as server:
        job = Job(choose("m", url=server.url, preset="trained", workers=1))
        results = sampling.rewritten(job, PROMPTS, tmp_path)
    assert list(map(sampling.texts, results)) == [{PROMPTS[0]: "a red cat in fog", PROMPTS[1]: PROMPTS[1]}]
    assert sampling.summary(results) == "1 of 2 rewritten; 1 kept as they were: refused"


def test_a_plain_run_is_not_continued_with_rewriting(tiny_sd, tmp_path, capsys):
    argv = ["a red cat", *settings(tiny_sd, tmp_path / "out")]
    assert sample(*argv) == 0
    assert not any("rewrit" in key for key in manifest.read(tmp_path / "out")[0].settings)
    assert "got rewriter=None" in fails(capsys, *argv, "--rewrite", "rules", "--resume", "latest")
    assert not (tmp_path / "out" / "rewrites.jsonl").exists()


def test_the_best_is_judged_for_the_user_s_prompt_on_the_embedded_model(tmp_path, capsys, no_proxy):
    """Judged for what was rendered, the first candidate is whole, and would be kept."""
    output = tmp_path / "out"
    with ChatServer(misled) as server:
        argv = [RIGHT, "--seed", 1, "--output", output, "--url", server.url]
        argv += ["--rewrite", "m", "--best-of", 2, "--batch-size", 1]
        assert sample(*argv) == 0
        assert sorted(request["temperature"] > 0 for request in server.requests) == [False, True]
        listed = jsonl.read(output / "candidates.jsonl")
        (row,) = manifest.read(output)
        before = {file.name: file.read_bytes() for file in output.glob("*.*")}
        cut_short(output)
        assert sample(*argv, "--resume", "latest") == 0
        assert len(server.requests) == 2
    assert "best of 2 by evaluator: mean 1" in capsys.readouterr().out
    assert [one["rewritten"] for one in listed] == [WRONG, RIGHT]
    assert [one["seed"] for one in listed] == [1, 2] and [one["kept"] for one in listed] == [False, True]
    assert listed[0]["score"] < listed[1]["score"] == 1
    assert (row.prompt, row.seed, row.settings["rewritten"]) == (RIGHT, 2, RIGHT)
    assert (row.settings["score"], row.settings["reward"], row.settings["best_of"]) == (1, "evaluator", 2)
    assert row.path.read_bytes() == (output / listed[1]["file"]).read_bytes()
    own = load_reward("evaluator", {}, "toy", [WRONG])
    image = np.asarray(Image.open(output / listed[0]["file"]), np.float32) / 255
    assert own(torch.from_numpy(image).permute(2, 0, 1)[None], [WRONG]).item() == 1
    assert {file.name: file.read_bytes() for file in output.glob("*.*")} == before


def cut_short(output: Path) -> None:
    """As if the power had failed while the second candidate was saved."""
    for name in ("00000.png", "manifest.jsonl", "candidates.jsonl", "grid.png", "candidates/00000-1.png"):
        (output / name).unlink()
    for name in ("candidates/manifest.jsonl", "candidates/scores.jsonl"):
        lines = (output / name).read_text().splitlines(keepends=True)
        (output / name).write_text("".join(lines[:-1]) + lines[-1][:9])


def test_what_cannot_be_judged_is_kept_without_a_score(tiny_sd, tmp_path, capsys):
    """A reward that knows some prompts only: the others' first candidate is the image, and the code is 3."""
    argv = ["a red cat?", "a red cat", *settings(tiny_sd, tmp_path / "out"), "--rewrite", "rules"]
    assert sample(*argv, "--best-of", 3, "--reward", "tests.scoring.images:Fussy") == 3
    rows, listed = manifest.read(tmp_path / "out"), jsonl.read(tmp_path / "out" / "candidates.jsonl")
    assert [row.settings["score"] is None for row in rows] == [True, True, False, False]
    assert [row.settings["candidate"] for row in rows[:2]] == [0, 0]
    assert len({one["seed"] for one in listed}) == len(listed) == 12  # equal texts, but a seed of their own
    assert [one["seed"] for one in listed if one["candidate"] == 0] == [5, 6, 7, 8]
    assert all(("with a question" in (one["error"] or "")) is ("?" in one["prompt"]) for one in listed)
    for start, row in enumerate(rows[2:], 2):
        own = listed[3 * start : 3 * start + 3]
        assert row.settings["score"] == max(one["score"] for one in own)
        assert [one["kept"] for one in own].count(True) == 1
    assert "6 of 12 not scored" in capsys.readouterr().out


def test_the_first_of_equal_scores_is_kept(tmp_path):
    plan = [{"file": f"{i:05d}.png", "prompt": p, "seed": i, "best_of": 3} for i, p in enumerate("ab")]
    rows = candidates(plan, [{"a": f"a{j}", "b": f"b{j}"} for j in range(3)])
    assert [row["file"] for row in rows[:4]] == ["00000-0.png", "00000-1.png", "00000-2.png", "00001-0.png"]
    assert [row["seed"] for row in rows] == [0, 2, 4, 1, 3, 5]
    (tmp_path / "candidates").mkdir()
    for row in rows:
        (tmp_path / "candidates" / row["file"]).write_text(row["rewritten"])
    scores = [0.5, 1.0, 1.0, None, -2.0, None]
    scored = [
        {**row, "score": score, "error": None if score is not None else "why"}
        for row, score in zip(rows, scores, strict=True)
    ]
    kept = keep(tmp_path, scored, "mine")
    assert [(row["file"], row["rewritten"], row["score"]) for row in kept] == [
        ("00000.png", "a1", 1.0),
        ("00001.png", "b1", -2.0),
    ]
    assert (tmp_path / "00001.png").read_text() == "b1"
    line = summary(scored, kept, "mine")
    assert line == "best of 3 by mine: mean -0.5, of first candidates 0.5; 2 of 6 not scored: why"


def test_the_divergence_of_the_best_of_n_by_hand():
    """Of the larger of two uniform numbers, density 2 u: the integral of 2 u log 2 u is log 2 - 1/2."""
    u = (np.arange(100_000) + 0.5) / 100_000
    assert divergence(2) == pytest.approx((2 * u * np.log(2 * u)).mean(), abs=1e-6)
    assert divergence(1) == 0 and divergence(4) == pytest.approx(0.6363, abs=1e-4)


def test_the_best_of_seeds_needs_no_rewriter(tiny_sd, tmp_path, capsys):
    argv = ["a cat", "--model", tiny_sd, "--output", tmp_path / "out", "--num-inference-steps", 2]
    assert sample(*argv, "--best-of", 3, "--reward", "tests.scoring.images:Redness") == 0
    said = capsys.readouterr().out
    assert "best of 3 by tests.scoring.images:Redness" in said
    assert "KL divergence of the best of 3 from the model: at most 0.432 nats" in said


def test_what_the_oracle_cannot_read_is_said_before_anything_is_made(tmp_path, capsys):
    argv = ["a pair of crimson balls", "--output", tmp_path / "out", "--rewrite", "rules", "--best-of", 2]
    line = fails(capsys, *argv, "--reward", "evaluator")
    assert "got caption 'a pair of crimson balls'" in line and "--option points=FILE" in line
    points = tmp_path / "points.json"
    point = {"kind": "counting", "description": "two red circles"}
    points.write_text(json.dumps({"a pair of crimson balls": [point]}))
    reward = load_reward("evaluator", {"points": str(points)}, "toy", ["a pair of crimson balls"])
    assert not reward.differentiable
    with pytest.raises(ValueError, match=r"got 'a cat', which .* lacks"):
        load_reward("evaluator", {"points": str(points)}, "toy", ["a cat"])
    assert not (tmp_path / "out").exists()


def test_without_a_name_a_real_model_asks_for_a_rewriter_before_it_is_loaded(tmp_path, capsys):
    """The folder holds no weights, nor anything else."""
    line = fails(capsys, "x", "--model", tmp_path, "--output", tmp_path / "out", "--rewrite")
    assert f"got --rewrite without a rewriter for --model {tmp_path}; expected its name" in line
    for name in (
        "Qwen/Qwen2.5-0.5B-Instruct",
        "Qwen/Qwen2.5-1.5B-Instruct",
        "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    ):
        assert f"{name} (" in line
    assert line.count("Apache-2.0") == 3 and line.endswith("or rules, which needs no model")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("run", [False, True], ids=["the toy model", "a run on it"])
def test_without_a_name_the_toy_model_takes_its_own_rewriter(tmp_path, run):
    (tmp_path / "config.yaml").write_text("model: toy\n")
    parser = argparse.ArgumentParser()
    sample_verb.add_arguments(parser)
    args = parser.parse_args(["--model", str(tmp_path) if run else "toy", "--rewrite"])
    how = sample_verb._rewriting(args)
    rewriting = rewriting_of(args.model, how["rewriter"], how["rewriter_options"])
    assert rewriting is not None
    assert rewriting.job.name == f"toy tries=2 longest=80 fit={args.model}"


def test_the_page_shows_the_images_of_the_prompt_and_of_its_rewrite(tiny_sd, tmp_path, capsys, monkeypatch):
    """The prompt is rendered with the seeds of its rewrite, by the model that was loaded for both, once."""
    loads: list[str] = []
    monkeypatch.setattr(
        load, "load_policy", lambda *given, **how: loads.append(given[0]) or load_policy(*given, **how)
    )
    output = tmp_path / "out"
    page = output / "page.html"
    argv = ["a red cat", "cat", *settings(tiny_sd, output), "--rewrite", "rules", "--html", page]
    assert sample(*argv) == 0
    assert loads == [str(tiny_sd)] and f"side by side: {page}" in capsys.readouterr().out
    rows, originals = manifest.read(output), manifest.read(output / "originals")
    changed = [row for row in rows if row.settings["rewritten"] != row.prompt]
    assert len(changed) >= 2 and [(row.prompt, row.seed) for row in originals] == [
        (row.prompt, row.seed) for row in changed
    ]
    assert sample("a red cat", "cat", *settings(tiny_sd, tmp_path / "plain")) == 0
    plain = {(row.prompt, row.seed): row.path for row in manifest.read(tmp_path / "plain")}
    for row in originals:
        assert np.abs(pixels(row.path) - pixels(plain[row.prompt, row.seed])).max() <= 1
    output.rename(tmp_path / "moved")
    images = links(tmp_path / "moved" / "page.html")
    assert {file.name for file in images} == {row.file for row in rows}
    assert len(images) == len(rows) + len(originals) and all(file.is_file() for file in images)


def test_the_page_of_the_best_has_the_rewrite_and_the_seed_that_were_kept(tmp_path, no_proxy):
    output = tmp_path / "out"
    with ChatServer(misled) as server:
        argv = ["a red cross", "--seed", 1, "--output", output, "--url", server.url, "--rewrite", "m"]
        argv += ["--num-inference-steps", 2, "--best-of", 2, "--html", output / "page.html"]
        assert sample(*argv) == 0
        before = (output / "page.html").read_bytes()
        assert sample(*argv, "--resume", "latest") == 0
        assert len(server.requests) == 2
    (row,), (original,) = manifest.read(output), manifest.read(output / "originals")
    assert (original.prompt, original.seed) == ("a red cross", row.seed)
    assert not {"rewritten", "candidate", "score", "reward"} & original.settings.keys()
    words = words_of(output / "page.html")
    assert f"Rewrite {row.settings['rewritten']} " in words
    assert words.endswith(f"The prompt, seed {row.seed} The rewrite, seed {row.seed}")
    assert (output / "page.html").read_bytes() == before


def test_the_readme_s_command_runs_as_it_is_printed(tmp_path, capsys):
    """Without a model, a rewriter or a reward by name, for a prompt that is no caption of the toy."""
    few = ["--num-inference-steps", 2, "--output", tmp_path / "out"]
    assert sample("a prompt", "--rewrite", "--best-of", 4, *few) == 0
    said = capsys.readouterr()
    assert "best of 4 by toy-clip" in said.out and "judged by toy-clip, since a prompt is no" in said.err
    assert len(jsonl.read(tmp_path / "out" / "candidates.jsonl")) == 4


@pytest.mark.parametrize(
    ("model", "options", "prompts", "name"),
    [
        ("toy", {}, [RIGHT], "evaluator"),
        ("toy", {}, [RIGHT, "a prompt"], "toy-clip"),
        ("toy", {"points": "points.json"}, ["a prompt"], "evaluator"),
        ("org/model", {"weights": "org/judge"}, ["a prompt"], "evaluator"),
    ],
)
def test_who_judges_where_nobody_is_named(model, options, prompts, name):
    assert default_reward(model, options, prompts) == name


def test_a_model_of_one_s_own_needs_the_name_of_a_judge(tiny_sd, tmp_path, capsys):
    argv = ["a cat", "--model", tiny_sd, "--output", tmp_path / "out", "--rewrite", "rules", "--best-of", 2]
    assert "got --best-of without --reward; expected the name" in fails(capsys, *argv)
    assert not (tmp_path / "out").exists()


def test_bad_combinations_are_one_line(tmp_path, capsys):
    assert "got --intensity without --rewrite" in fails(capsys, "x", "--intensity", "light")
    assert "got --html without --rewrite" in fails(capsys, "x", "--html", tmp_path / "page.html")
    assert "got --rewriter-option without" in fails(capsys, "x", "--rewriter-option", "a=1")
    rules = ["x", "--output", tmp_path / "out", "--rewrite", "rules"]
    assert "got --reward without --best-of" in fails(capsys, *rules, "--reward", "evaluator")
    assert "got --best-of 1; expected at least 2" in fails(capsys, *rules, "--best-of", 1)
    assert "expected a file that ends in .html" in fails(capsys, *rules, "--html", tmp_path / "page.pdf")
    assert "expected prompts before --rewrite" in fails(capsys, "--rewrite", "a red cat")
    assert "got reward 'no-such'" in fails(capsys, *rules, "--best-of", 2, "--reward", "no-such")
    assert not (tmp_path / "out").exists()
