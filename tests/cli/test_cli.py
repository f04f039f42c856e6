"""The command line: instant help, and for every user error one line on stderr, exit code 2, no traceback."""

import json
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from t2ialign.cli import main as cli
from t2ialign.cli import train
from t2ialign.config import load
from t2ialign.version import __version__

ROOT = Path(__file__).resolve().parents[2]


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must fail as a user's error, and return its one line."""
    capsys.readouterr()
    assert cli.main(list(argv)) == 2
    err = capsys.readouterr().err
    found = [line for line in err.splitlines() if line.startswith("t2ialign: error: ")]
    assert len(found) == 1 and "Traceback" not in err, err
    return found[0]


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom t2ialign.cli.main import main\nmain(['--help'])\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'diffusers', 'PIL', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    seconds = []
    for _ in range(
        3
    ):  # the processor's time, and the best of three: the machine may be busy with other things
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        after = os.times()
        seconds.append(sum(after[2:4]) - sum(before[2:4]))
        assert done.returncode == 0, done.stderr
    assert min(seconds) < 0.5
    assert all(f"\n  {verb} " in done.stdout for verb in cli.VERBS)


def test_the_module_runs_as_the_console_script_does() -> None:
    for argv, code in (["--version"], 0), (["nonsense"], 2):
        done = subprocess.run(
            [sys.executable, "-m", "t2ialign", *argv], capture_output=True, text=True, check=False
        )
        assert done.returncode == code
        assert len((done.stdout + done.stderr).splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("rank", "error", "said"),
    [
        ("0", ValueError("got x"), "t2ialign: error: got x\n"),
        ("1", ValueError("got x"), ""),
        ("1", OSError(5, "Input/output error"), "t2ialign: error: process 1: [Errno 5] Input/output error\n"),
    ],
)
def test_of_several_processes_one_prints_the_line(
    rank: str,
    error: Exception,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(args: object) -> None:
        raise error

    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(train, "run", broken)
    assert cli.main(["train", "dpo"]) == 2
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_a_help_that_exits_0(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert cli.main([verb, "--help"]) == 0
    except SystemExit as leave:  # argparse's own
        assert leave.code == 0
    assert f"usage: t2ialign {verb}" in capsys.readouterr().out


def test_version_and_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"t2ialign {__version__}\n"
    assert cli.main([]) == 2
    assert "usage: t2ialign VERB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], r"got verb 'trian'; expected one of train, .*; did you mean train\?"),
        (["train"], r"got no method; expected one of .*dpo"),
        (["train", "dop"], r"got method 'dop'; expected one of .*dpo.*; did you mean dpo\?"),
        (["train", "no.such.module"], r"got method 'no.such.module'"),
        (["train", "dpo", "learning_rat=1"], r"got unknown key 'learning_rat'; expected 'lr'"),
        (["train", "dpo", "bta=500"], r"got unknown key 'bta'; expected 'beta'"),
        (["train", "dpo", "data=x", "lr=fast"], r"lr: got 'fast'; expected a valid number"),
        (["train", "dpo", "data=x", "lr=-1"], r"lr: got -1; expected a number greater than 0"),
        (["train", "dpo"], r"got no 'data'; expected the preference pairs.*; add data=..."),
        (["train", "dpo", "nonsense"], r"got override 'nonsense'; expected key=value"),
        (["train", "dpo", "-c", "no/such.yaml"], r"got config no/such.yaml; expected a YAML file"),
        (["train", "dpo", "--lr", "1"], r"got no 'data'"),
        (["train", "dpo", "--lr"], r"got --lr without a value; expected one; write --lr VALUE, or lr=VALUE"),
        (["train", "--lr", "1"], r"got no method; expected one of .*dpo"),
        (["train", "dpo", "--bta", "500"], r"got unknown key 'bta'; expected 'beta'"),
        (["train", "dpo", "--use_8bit_adam"], r"got 'use_8bit_adam'.*use optimizer: write optimizer=adamw8"),
        (["train", "dpo", "--push-to-hub"], r"got 'push_to_hub', .*there is no such setting here: nothing"),
        (
            ["train", "dpo", "-lr", "1"],
            r"got -lr 1; expected an option of t2ialign train; write --lr, with two dashes",
        ),
        (
            ["sample", "x", "seed=20"],
            r"got seed=20; expected an option with dashes.*; write --seed 20",
        ),
        (
            ["sample", "x", "--sede", "20"],
            r"got --sede.*; expected an option .*; did you mean --seed\?",
        ),
        (["recipes", "a", "output=b"], r"got output=b; expected an option of t2ialign recipes; drop it"),
        (
            ["score", "README.md", "README.md", "-o", "x.csv"],
            r"got README.md; .*; put a pattern in quotes, such",
        ),
        (["train", "dpo", "-c", "backprop_sd15"], r"t2ialign train backprop -c backprop_sd15"),
        (["train", "./my_method.py"], r"got method './my_method.py'.*package.module, not as a file"),
        (["train", "json.decoder", "lr=1"], r"got method 'json.decoder' without Config and Trainer"),
        (["train", "rewards.base", "lr=1"], r"got method 'rewards.base' without Config and Trainer"),
        (["sample", "x", "--guidance-scale", "inf"], r"got --guidance-scale inf; expected a number from 1"),
        (["sample"], r"got no prompt"),
        (["sample", "x", "-n", "0"], r"got -n 0; expected a number from 1"),
        (
            ["sample", "x", "--num-inference-steps", "many"],
            r"invalid int value: 'many'; see t2ialign sample --help",
        ),
        (["sample", "--prompts", "no-such.txt"], r"no-such.txt"),
        (["sample", "x", "--lora", "no/such"], r"got --lora no/such; expected an existing file or folder"),
        (["sample", "x", "--model", "./no-such-model"], r"got model './no-such-model'"),
        (["evaluate", "x"], r"--reward"),
        (["evaluate", "no-such", "--reward", "toy-oracle"], r"got no no-such.*t2ialign sample"),
    ],
)
def test_user_errors_are_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    extra = ["--output", str(tmp_path / "out")] if argv[0] == "sample" else []
    assert re.search(message, fails(capsys, *argv, *extra))


def test_debug_shows_the_traceback_and_keeps_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "dpo", "--debug", "bta=500"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and "ValidationError" in err
    assert err.splitlines()[-1].startswith("t2ialign: error: ") and "got unknown key 'bta'" in err


def test_overrides_may_stand_on_both_sides_of_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from t2ialign.methods.dpo import trainer as dpo

    seen = []
    monkeypatch.setattr(dpo.Trainer, "__init__", lambda self, cfg: seen.append(cfg))
    monkeypatch.setattr(dpo.Trainer, "fit", lambda self: None)
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: a\nbeta: 2000\nlr: 1e-4\n")
    assert cli.main(["train", "dpo", "gamma=0.9", "-c", str(recipe), "lr=2e-4", "seed=3"]) == 0
    assert seen == [load(dpo.Config, recipe, ["gamma=0.9", "lr=2e-4", "seed=3"])]
    assert (seen[0].lr, seen[0].beta, seen[0].gamma) == (2e-4, 2000, 0.9)


def test_a_methods_help_lists_its_settings_with_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["train", "dpo", "--help"], ["train", "--help", "dpo"], ["train", "-h", "dpo", "-c", "x"]):
        assert cli.main(argv) == 0
        text = capsys.readouterr().out
        assert "usage: t2ialign train dpo [-c recipe.yaml] [key=value ...]" in text
        assert "beta (float > 0; default 5000)" in text and "lora_rank (int >= 0; default 16)" in text


def test_methods_are_the_trainer_files() -> None:
    assert {"dpo", "dense"} <= set(train.methods())
    assert not {"base", "checkpoint", "log", "__init__"} & set(train.methods())


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("got\n  two\nlines"), 2, "t2ialign: error: got two lines\n"),
        (FloatingPointError("got loss nan at step 3"), 2, "t2ialign: error: got loss nan at step 3\n"),
        (
            OSError(28, "No space left on device"),
            2,
            "t2ialign: error: [Errno 28] No space left on device; free some disk space and run the same",
        ),
        (KeyboardInterrupt(), 130, "t2ialign: interrupted\n"),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(args: object) -> None:
        raise error

    monkeypatch.setattr(train, "run", broken)
    assert cli.main(["train", "dpo"]) == code
    err = capsys.readouterr().err
    assert err.startswith(line) and len(err.splitlines()) == (1 if line else 0)


def test_our_own_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(args: object) -> None:
        raise AssertionError("an invariant")

    monkeypatch.setattr(train, "run", broken)
    with pytest.raises(AssertionError, match="an invariant"):
        cli.main(["train", "dpo"])


def test_warnings_and_notes_are_one_line_each() -> None:
    code = (
        "import logging, sys, warnings\nfrom t2ialign.cli import main as cli, train\n"
        "def run(args):\n"
        "    warnings.warn('prompt\\ncut')\n"
        "    logging.getLogger('t2ialign.data').info('12 pairs')\n"
        "train.run = run\nsys.exit(cli.main(['train', 'dpo']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "t2ialign: warning: prompt cut\nt2ialign: 12 pairs\n"


def test_a_warning_is_said_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: object) -> None:
        for prompt in ("a", "b", "a"):
            for name in ("t2ialign.models.families.clip_text", "rewards.toy.clip"):
                logging.getLogger(name).warning("%s cut: %r", name, prompt)
        logging.getLogger("t2ialign").info("note")
        logging.getLogger("t2ialign").info("note")

    monkeypatch.setattr(train, "run", run)
    for _ in range(2):
        assert cli.main(["train", "dpo"]) == 0
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == len(set(lines)) + 1 == 6 and lines[-2:] == ["t2ialign: note"] * 2


def test_a_prompt_that_is_too_long_is_said_once_however_many_batches(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "a red circle and forty more letters than fit"
    options = ["--model", str(tiny_sd), "--num-inference-steps", "1", "--output", str(tmp_path / "out")]
    assert cli.main(["sample", prompt, "-n", "3", "--batch-size", "1", *options]) == 0
    cut = [line for line in capsys.readouterr().err.splitlines() if "cut: " in line]
    assert len(cut) == 1 and f"t2ialign: prompt {prompt!r} has" in cut[0]


def test_main_leaves_no_trace_in_the_process() -> None:
    before = warnings.formatwarning
    cli.main(["--version"])
    assert warnings.formatwarning is before


def pairs_file(folder: Path, rows: Sequence[Mapping[str, object]]) -> str:
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (32, 32), colour).save(folder / name)
    (folder / "broken.png").write_bytes(b"\x89PNG not really")
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


PAIR = {"prompt": "a red circle", "chosen": "a.png", "rejected": "b.png"}
TIE = {"caption": "x", "jpg_0": "a.png", "jpg_1": "b.png", "label_0": 0.5, "label_1": 0.5}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"prompt": "x", "winner": "a.png", "loser": "b.png"}],
            r"got columns prompt, winner, loser; expected",
        ),
        ([], r"got no rows"),
        ([TIE, TIE], r"2 of them ties.*ties=half"),
        ([PAIR, PAIR | {"rejected": "broken.png"}], r"broken.png.*expected a whole image"),
        ([PAIR | {"chosen": "missing.png"}], r"missing.png"),
        ([PAIR | {"prompt": 7}], r"got prompt 7; expected text"),
    ],
    ids=["missing column", "empty", "all ties", "unreadable image", "missing image", "prompt no text"],
)
def test_bad_training_data_is_one_line(
    rows: list[dict[str, object]],
    message: str,
    tiny_sd: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, output = pairs_file(tmp_path, rows), tmp_path / "out"
    command = ["train", "dpo", f"data={data}", f"model={tiny_sd}", f"output={output}", "trackers=[]"]
    assert re.search(message, fails(capsys, *command))


def test_what_a_file_holds_is_cut_and_shown_without_control_characters(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "y" * 10**6
    changes: list[dict[str, object]] = [{"chosen": ["\x1b]0;x\x07" + long]}, {"chosen": long}]
    changes += [{"prompt": {"\x1b[2J": long}}]
    for change in changes:
        row = {**PAIR, **change}
        command = ["train", "dpo", f"data={pairs_file(tmp_path, [row])}", f"model={tiny_sd}", "trackers=[]"]
        line = fails(capsys, *command, f"output={tmp_path / 'out'}")
        assert "pairs.jsonl line 1" in line and len(line) < 600 and line.isprintable()


def test_rows_that_cannot_be_used_are_left_out_and_one_line_says_which(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: list[dict[str, object]] = [{}, {"prompt": None}, {"prompt": ""}, {"chosen": None}]
    changes += [{"chosen": "broken.png"}, {"rejected": "a.png"}, {"prompt": "b"}]
    data = pairs_file(tmp_path, [{**PAIR, **change} for change in changes])
    command = ["train", "dpo", f"data={data}", f"model={tiny_sd}", f"output={tmp_path / 'out'}", *SHORT]
    assert "line 2: got prompt None" in fails(capsys, *command)
    assert cli.main([*command, "unreadable=skip"]) == 0
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "left out" in text]
    assert line.startswith(f"t2ialign: {data}: 5 of 7 rows left out: 2 without a prompt (first: line 2: got")
    assert "; 2 with an image that cannot be read (first: line 4 chosen: got None" in line
    assert "; 1 with the same image as both sides (first: line 6: got " in line
    assert line.endswith("that is more than half: check the data")


SHORT = ["max_steps=1", "accumulate=1", "batch_size=2", "lora_rank=2", "holdout=0", "trackers=[]"]


@pytest.mark.parametrize(
    ("rows", "mended", "more"),
    [
        ([TIE, TIE], [TIE, TIE], ["ties=half"]),
        ([{"prompt": "x", "winner": "a.png"}], [PAIR], []),
        ([], [PAIR], []),
        ([PAIR, PAIR | {"prompt": 7}], [PAIR, PAIR], []),
    ],
    ids=["all ties", "missing column", "empty", "bad row after a good one"],
)
def test_what_the_message_advises_is_accepted(
    rows: list[dict[str, object]],
    mended: list[dict[str, object]],
    more: list[str],
    tiny_sd: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, output = pairs_file(tmp_path, rows), tmp_path / "out"
    command = ["train", "dpo", f"data={data}", f"model={tiny_sd}", f"output={output}", *SHORT]
    fails(capsys, *command)
    pairs_file(tmp_path, mended)
    assert cli.main([*command, *more]) == 0


def test_a_mended_image_lets_the_same_command_pass(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = pairs_file(tmp_path, [PAIR, PAIR | {"rejected": "broken.png"}]), tmp_path / "out"
    settings = ["max_steps=1", "accumulate=1", "batch_size=2", "lora_rank=2", "holdout=0", "trackers=[]"]
    command = ["train", "dpo", f"data={data}", f"model={tiny_sd}", f"output={output}", *settings]
    assert re.search(r"broken.png.*; expected a whole image", fails(capsys, *command))
    Image.new("RGB", (32, 32), "blue").save(tmp_path / "broken.png")
    assert cli.main(command) == 0
    assert (output / "pytorch_lora_weights.safetensors").is_file()


def test_an_output_folder_in_use_is_not_touched(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.txt").write_text("mine")
    data = pairs_file(tmp_path, [PAIR])
    line = fails(capsys, "train", "dpo", f"data={data}", f"model={tiny_sd}", f"output={output}")
    assert "in use" in line and "resume=latest" in line
    line = fails(capsys, "sample", "x", "--model", str(tiny_sd), "--output", str(output))
    assert "in use" in line and "--resume latest" in line
    assert [p.name for p in output.iterdir()] == ["thesis.txt"]
