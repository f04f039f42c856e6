"""One run at a time: who is refused, who is not, and what a killed run leaves."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from t2ialign.cli import main as cli
from t2ialign.io import locks
from t2ialign.training.methods import methods

HOLD = """
import os, sys, time
from pathlib import Path
from t2ialign.io import locks
with locks.hold_{kind}(Path({path!r})):
    worker = os.fork()
    if not worker:  # a decoding worker, which outlives a killed run
        print(os.getpid(), flush=True)  # by now it has closed what it inherited of the lock
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
"""


@contextmanager
def other_run(path: Path, kind: str = "folder") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that holds the path, and a worker that it forked."""
    code = HOLD.format(kind=kind, path=str(path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        try:
            yield process, worker
        finally:
            process.kill()
            os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_another_process_is_refused_and_a_killed_one_holds_nothing(tmp_path, kind):
    path = tmp_path / "new" / "out"
    hold = getattr(locks, f"hold_{kind}")
    with other_run(path, kind) as (process, worker):
        with pytest.raises(ValueError, match="which another run is using") as caught, hold(path):
            pass
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        process.kill()
        process.wait()
        os.kill(worker, 0)  # it lives on, with all that it inherited
        assert list((tmp_path / "new").rglob("*.lock")), "the file is left"
        with hold(path):
            pass
    assert not list(tmp_path.rglob("*.lock"))


def test_of_several_processes_the_first_one_holds_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with locks.hold_folder(tmp_path, shared=True):
        monkeypatch.setenv("RANK", "1")
        with locks.hold_folder(tmp_path, shared=True):
            pass
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(ValueError, match="another run"), locks.hold_folder(tmp_path, shared=True):
            pass


@pytest.mark.parametrize("hold", [locks.hold_folder, locks.hold_file])
def test_several_processes_that_would_each_write_all_of_it_are_refused(tmp_path, monkeypatch, hold):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        with (
            pytest.raises(ValueError, match=r"got 2 processes .*without accelerate launch"),
            hold(tmp_path / "x"),
        ):
            pass
    assert not list(tmp_path.iterdir())


def test_a_fit_that_knows_one_process_refuses_two(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main([word.format("out") for word in VERBS["train evaluator"]]) == 2
    assert "got 2 processes that would all write output=out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


RACE = """
import os, sys
from pathlib import Path
from t2ialign.io import locks
folder, entered = Path(sys.argv[1]), 0
for _ in range(60):
    try:
        with locks.hold_folder(folder / "a" / "out"):
            os.mkdir(folder / "inside")  # raises if another process is
            os.rmdir(folder / "inside")
            entered += 1
    except ValueError as error:
        assert "another run" in str(error), error
print(entered)
"""


def test_runs_that_start_while_others_end_are_never_two_and_meet_no_other_error(tmp_path):
    """The file of a lock and the folders that were made for it go, while others open them."""
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    entered = [int(racer.communicate()[0]) for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4
    assert sum(entered) > 200, "a run that ends keeps nobody away"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_where_the_file_system_has_no_locks_a_file_stands_for_one(tmp_path, monkeypatch, caplog, number):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        locks.hold_folder(tmp_path / "out"),
        pytest.raises(ValueError, match=r"another run is using") as caught,
        locks.hold_folder(tmp_path / "out"),
    ):
        pass
    assert str(tmp_path / "out" / ".lock") in str(caught.value)
    assert "is on a file system without locks" in caplog.text
    with locks.hold_folder(tmp_path / "out"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_place_where_no_lock_can_be_written_is_one_line(tmp_path):
    (tmp_path / ".lock").mkdir()
    words = r"got --output .*no lock can be written .*choose another"
    with pytest.raises(ValueError, match=words) as caught, locks.hold_folder(tmp_path):
        pass
    assert "\n" not in str(caught.value)


def test_what_was_written_stays_and_the_lock_goes(tmp_path):
    with locks.hold_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result").write_text("x")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["result"]
    with pytest.raises(KeyError), locks.hold_folder(tmp_path / "a" / "c"):
        raise KeyError
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_a_link_to_a_folder_is_the_folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with (
        locks.hold_folder(tmp_path / "real"),
        pytest.raises(ValueError, match="link, which another run"),
        locks.hold_folder(tmp_path / "link"),
    ):
        pass


@pytest.mark.parametrize("target", ["link", "nowhere"])
def test_a_link_that_leads_nowhere_is_one_line(tmp_path, target):
    link = tmp_path / "link"
    link.symlink_to(target)
    for hold in (locks.hold_folder, locks.hold_file):
        with pytest.raises(ValueError, match=r"link, which is a link that leads nowhere"), hold(link):
            pass
    with pytest.raises(ValueError, match="leads nowhere"), locks.hold_folder(link, nested=True):
        pass


def test_a_folder_is_free_if_it_holds_a_lock_at_most(tmp_path):
    locks.check_free(tmp_path / "none")
    (tmp_path / locks.LOCK).touch()
    locks.check_free(tmp_path)
    (tmp_path / "cache").mkdir()
    locks.check_free(tmp_path, passing=lambda item: item.name == "cache")
    with pytest.raises(ValueError, match=r"got output=.*in use \(it holds cache\).*; add resume, or choose"):
        locks.check_free(tmp_path, "output=", advice="add resume, or ")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="which is a file; expected a folder"):
        locks.check_free(tmp_path / "file")
    with pytest.raises(ValueError, match="which is a file"), locks.hold_folder(tmp_path / "file"):
        pass


def test_blocks_of_one_run_may_lie_within_each_other(tmp_path):
    """As the command line's and that of fit, which a program of the user's calls alone."""
    out = tmp_path / "out"
    with locks.hold_folder(out, nested=True):
        with locks.hold_folder(out, nested=True):
            (out / "result").touch()
        assert (out / locks.LOCK).is_file(), "the outer one still holds it"
        with pytest.raises(ValueError, match="another run"), locks.hold_folder(out):
            pass
        with ThreadPoolExecutor() as pool, pytest.raises(ValueError, match="another run"):
            pool.submit(hold_nested, out).result()
    assert [path.name for path in out.iterdir()] == ["result"]
    with other_run(out), pytest.raises(ValueError, match="another run"):
        hold_nested(out)


def hold_nested(folder: Path) -> None:
    with locks.hold_folder(folder, nested=True):
        pass


class Fitted:
    """A trainer as Python code uses one."""

    def __init__(self, output: Path) -> None:
        self.cfg = SimpleNamespace(output=output)

    @locks.holding_output
    def fit(self) -> list[str]:
        return sorted(path.name for path in self.cfg.output.iterdir())


def test_fit_called_from_python_holds_its_output(tmp_path):
    out = tmp_path / "out"
    assert Fitted(out).fit() == [locks.LOCK]
    with other_run(out), pytest.raises(ValueError, match=r"got output=.*out, which another run is using"):
        Fitted(out).fit()
    with locks.hold_folder(out, "output=", nested=True):
        assert Fitted(out).fit() == [locks.LOCK]


@pytest.mark.parametrize("method", methods())
def test_every_trainer_holds_its_output_while_it_fits(method):
    assert hasattr(import_module(f"t2ialign.methods.{method}.trainer").Trainer.fit, "__wrapped__")


REWARDS = ("--rewards", "toy-oracle", "toy-clip", "aesthetic")
VERBS = {
    "sample": ("sample", "a red circle", "--output", "{}"),
    "sample resumed": ("sample", "a red circle", "--output", "{}", "--resume", "latest"),
    "train": ("train", "dpo", "data=pairs.jsonl", "output={}"),
    "train resumed": ("train", "dpo", "data=pairs.jsonl", "output={}", "resume=latest"),
    "train reward": ("train", "reward", "data=pairs.jsonl", "reward=toy-clip", "output={}"),
    "train rewrite_sft": ("train", "rewrite_sft", "data=rows.jsonl", "output={}"),
    "train evaluator": ("train", "evaluator", "data=rows.jsonl", "reward=toy-clip", "output={}"),
    "mix": ("mix", "a", "b", "--alpha", "0.5", "--output", "{}"),
    "evaluate": ("evaluate", "samples", "--reward", "toy-oracle", "--output", "{}"),
    "keypoints": ("keypoints", "samples", "--output", "{}", "--resume", "latest"),
    "demo": ("demo", "--output", "{}"),
    "rewrite": ("rewrite", "a red circle", "--rewriter", "rules", "-o", "{}.jsonl", "--resume", "latest"),
    "filter": ("filter", "pairs.jsonl", *REWARDS, "-o", "{}.jsonl"),
    "score": ("score", "samples", "--rewards", "toy-oracle", "-o", "{}.csv", "--resume", "latest"),
    "merge": ("score", "--merge", "samples/manifest.jsonl", "-o", "{}.csv"),
    "export": ("export", "lora.safetensors", "--format", "kohya", "-o", "{}.safetensors"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_that_writes_refuses_an_output_that_another_run_uses(verb, tmp_path, monkeypatch, capsys):
    """In one line that names it, before anything is loaded, and without a trace."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples").mkdir()
    row = json.dumps({"file": "0.png", "prompt": "a red circle", "seed": 0})
    (tmp_path / "samples" / "manifest.jsonl").write_text(row + "\n")
    (tmp_path / "lora.safetensors").touch()
    words = [word.format("out") for word in VERBS[verb]]
    output = Path(words[words.index("-o") + 1]) if "-o" in words else Path("out")
    before = sorted(tmp_path.rglob("*"))
    with locks.hold_file(output) if output.suffix else locks.hold_folder(output):
        held = sorted(tmp_path.rglob("*"))
        assert cli.main(words) == 2
        assert sorted(tmp_path.rglob("*")) == held
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("t2ialign: error")]
    assert f"{output}, which another run is using; expected one run at a time" in line
    assert sorted(tmp_path.rglob("*")) == before
