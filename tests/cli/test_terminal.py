"""Output that goes to a file or a pipe: plain lines, few of them, none with -q; readers that leave."""

import io
import json
import logging
import subprocess
import sys

import pytest
from PIL import Image

from t2ialign import progress
from t2ialign.cli import main as cli
from t2ialign.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def test_on_a_pipe_a_line_now_and_then_and_one_at_the_end(clock, capsys):
    with Progress(total=100, desc="sample", unit="image") as bar:
        for done in range(1, 101):
            clock.now = 3.0 * done
            if done == 50:
                bar.set_postfix({"loss": "0.5"})
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "t2ialign: sample: 4 of 100 images in 0:00:12"
    assert lines[-1] == "t2ialign: sample: 100 of 100 images in 0:05:00, loss 0.5"
    # From 10 s apart at first to a tenth of the time so far: 300 s are not 30 lines.
    assert 10 < len(lines) < 25 and all("\r" not in line for line in lines)


def test_what_is_over_soon_says_nothing(clock, capsys):
    assert list(Progress([1, 2, 3], desc="x")) == [1, 2, 3]
    assert capsys.readouterr().err == ""


def test_items_are_counted_and_their_number_is_the_total(clock):
    bar = Progress("abc", desc="x", initial=2)
    assert bar.total == 3 and list(bar) == ["a", "b", "c"] and bar.n == 5


def test_on_a_terminal_a_bar(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(total=2, desc="sample", unit="image") as bar:
        bar.update(2)
    assert "\rsample: 100%" in stream.getvalue()


def test_where_the_log_is_quiet_nothing(clock, capsys):
    logger = logging.getLogger("t2ialign")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with Progress(total=2, desc="x") as bar:
            clock.now = 100
            bar.update()
    finally:
        logger.setLevel(before)
    assert capsys.readouterr().err == ""


@pytest.fixture
def no_foreign_bars():
    """As in a process of its own, where the libraries are imported after their bars were switched off."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    for library in (of_diffusers, of_transformers):
        library.disable_progress_bar()
    yield
    for library in (of_diffusers, of_transformers):
        library.enable_progress_bar()


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_quiet_leaves_results_and_warnings(flag, no_foreign_bars, tiny_sd, tmp_path, capsys):
    options = ["--num-inference-steps", "1", "--model", str(tiny_sd), "--output"]
    assert cli.main(["sample", "a", *options, str(tmp_path / "out"), flag]) == 0
    said = capsys.readouterr()
    assert said.err == "" and said.out.startswith("1 images and manifest.jsonl in ")
    assert cli.main(["sample", "a", "-n", "0", flag]) == 2
    assert capsys.readouterr().err.startswith("t2ialign: error: got -n 0")


def test_a_quiet_training_says_where_the_result_is_and_what_looks_wrong(
    no_foreign_bars, tiny_sd, tmp_path, capsys
):
    for name in ("a", "b"):
        Image.new("RGB", (32, 32), "red" if name == "a" else "blue").save(tmp_path / f"{name}.png")
    pair = {"prompt": "a red circle", "chosen": "a.png", "rejected": "b.png"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    words = [f"--data={tmp_path}/pairs.jsonl", f"--model={tiny_sd}", f"--output={tmp_path}/run"]
    words += ["--max_steps=30", "--accumulate=1", "--batch_size=1", "--lora_rank=2", "--lr=1e-9"]
    words += ["--holdout=0", "--trackers=[]"]
    assert cli.main(["train", "dpo", *words, "-q"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("warning: 30.0 epochs") and lines[-1].startswith("wrote ")
    assert all(line.startswith("warning: ") for line in lines[:-1])


SEVERAL = """
import sys
from t2ialign.cli.main import main
folder = sys.argv[1]
code = main(["sample", "a red circle", "-n", "2", "--num-inference-steps", "2",
              "--output", folder + "/images"])
code |= main(["score", folder + "/images", "--rewards", "toy-clip", "-o", folder + "/scores.jsonl"])
code |= main(["train", "backprop", "prompts=a red circle", "output=" + folder + "/run", "max_steps=2",
              "num_inference_steps=2", "batch_size=1", "validation_prompts=a red circle",
              "validation_steps=2"])
code |= main(["rewrite", "a pair of crimson balls", "--rewriter", "toy", "-o", folder + "/rewrites.jsonl"])
code |= main(["train", "rewrite_sft", "data=" + folder + "/rows.jsonl", "output=" + folder + "/rewriter",
              "max_steps=1", "batch_size=1", "holdout=0.5"])
sys.exit(code)
"""


@pytest.mark.rest
def test_real_commands_write_no_control_characters_into_a_pipe(tmp_path):
    row = {"prompt": "a pair of crimson balls", "thought": "two", "rewrite": "two red circles"}
    rows = [row, {**row, "prompt": "a crimson ball"}, {**row, "prompt": "one ball"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run([sys.executable, "-c", SEVERAL, str(tmp_path)], capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    assert not any(mark in said for mark in ("\r", "\x1b", "it/s", "s/it", "%|"))
    assert "run plan: backprop" in said and "images and manifest.jsonl" in said


@pytest.mark.parametrize("argv", [["recipes"], ["--help"], ["recipes", "dpo_sd15"]])
def test_a_reader_that_leaves_ends_it_quietly(argv, tmp_path):
    command = [sys.executable, "-m", "t2ialign", *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 141


def test_the_environment_is_as_before(monkeypatch):
    import os

    before = dict(os.environ)
    cli.main(["--version"])
    assert dict(os.environ) == before


def test_closed_output_is_no_traceback(tmp_path):
    """A shell gives a program none by 1>&- and 2>&-."""
    words = [sys.executable, "-m", "t2ialign", "rewrite", "a red circle"]
    for closed in ("1>&-", "2>&-", "1>&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f'"$@" {closed}', "sh", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, closed
        assert "Traceback" not in done.stderr
