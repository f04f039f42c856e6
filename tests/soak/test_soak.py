"""The soak itself can fail: what its judges take for a fault, and that one fault is an exit code."""

import signal
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from tests.soak import __main__ as soak
from tests.soak import judge, runs


@dataclass
class Ended:
    """What a command may have done."""

    code: int | None = 0
    text: str = ""
    ended_by_us: str = ""
    errors: list[str] = field(init=False)

    def __post_init__(self):
        self.errors = [line for line in self.text.splitlines() if line.startswith("t2ialign: error:")]


TRACEBACK = "Traceback (most recent call last):\n  File x\nKeyError: 'a'"
ERROR = "t2ialign: error: got x; expected y"


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (Ended(1, TRACEBACK), "traceback: KeyError: 'a'"),
        (Ended(0, TRACEBACK), "traceback"),
        (Ended(-signal.SIGSEGV), "exit code -11"),
        (Ended(None, ended_by_us="time"), "stopped for its time"),
        (Ended(-9, ended_by_us="memory"), "stopped for its memory"),
        (Ended(3), "exit code 3"),
        (Ended(2, "t2ialign: note"), "exit code 2 with 0 lines of error"),
        (Ended(2, f"{ERROR}\n{ERROR}"), "exit code 2 with 2 lines of error"),
        (Ended(2, ERROR + "x" * judge.LONGEST), "characters"),
    ],
)
def test_a_command_that_ends_badly_is_a_fault(run, words):
    (fault,) = judge.faults(run, 0)
    assert words in fault


def test_an_end_that_is_stated_is_no_fault():
    assert not [*judge.faults(Ended(), 0), *judge.faults(Ended(2, ERROR)), *judge.faults(Ended(-9), 0, -9)]


def test_lost_doubled_new_and_changed_rows_are_told_apart():
    whole = [("a", {"score": 0.5}), ("b", {"score": 1.0}), ("c", None)]
    assert judge.differences(whole, list(reversed(whole))) == []
    near = [("a", {"score": 0.5001}), *whole[1:]]
    assert judge.differences(whole, near) == []
    assert judge.differences(whole, whole[:2]) == ["lost c"]
    assert judge.differences(whole, [*whole, whole[0]]) == ["doubled a"]
    assert judge.differences(whole, [*whole, ("d", 1)]) == ["new d"]
    assert judge.differences(whole, [("a", {"score": 0.6}), *whole[1:]]) == ["changed a"]
    assert judge.differences(whole, [("a", {"score": None}), *whole[1:]]) == ["changed a"]
    nan = float("nan")
    assert judge.close([nan, 1, "x"], [nan, 1, "x"]) and not judge.close([0.5], [nan])


def test_a_second_run_must_be_refused_by_name():
    assert not list(judge.refusal(Ended(2, f"{ERROR} --output out, which another run is using"), "out"))
    for run in (Ended(0), Ended(1), Ended(2, ERROR), Ended(2)):
        assert list(judge.refusal(run, "out")), run


@pytest.mark.parametrize(
    ("html", "count"),
    [
        ("<p title=a>x</p><img src='data:image/png;base64,x'><a href=out/a.png>x</a>", 0),
        ("<script>pwn()</script>", 1),
        ("<svg/onload=pwn()>", 1),
        ("<a href=' javascript:pwn()'>", 2),
        ("<img src=https://example.org/x.png>", 1),
        ("<iframe>", 1),
    ],
)
def test_a_page_that_runs_or_fetches_something_is_a_fault(html, count):
    assert len(judge.hostile(html)) == count
    assert not judge.hostile("<script>ours()</script>", scripts=1)


def test_a_process_is_watched(tmp_path, monkeypatch):
    run = runs.Run(["--version"], tmp_path, fresh=True).wait()
    assert run.code == 0 and run.text.startswith("t2ialign ") and run.megabytes > 1
    killed = runs.Run(["--version"], tmp_path, fresh=True).wait(kill_after=0, stop=signal.SIGTERM)
    assert (killed.code, killed.ended_by_us) == (-signal.SIGTERM, "kill")
    monkeypatch.setattr(runs, "SECONDS", 0.0)
    assert runs.Run(["--version"], tmp_path, fresh=True).wait().ended_by_us == "time"
    monkeypatch.setattr(runs, "SECONDS", 60.0)
    monkeypatch.setattr(runs, "MEGABYTES", 1)
    assert runs.Run(["--version"], tmp_path, fresh=True).wait().ended_by_us == "memory"


class Planted:
    """A kind whose every second try finds something, and whose fifth one runs code."""

    def __init__(self, world):
        self.world = world

    def attempt(self, rng, folder):
        number = int(folder.name)
        (folder / "input").write_text(str(rng.random()), encoding="utf-8")
        if number == 4:
            self.world.canary.touch()
        return 3, ["a row was lost"] if number % 2 else []


def test_a_fault_is_a_line_that_says_how_to_repeat_it_and_exit_code_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(soak, "KINDS", {"planted": "Planted"})
    monkeypatch.setattr(runs, "prepare", lambda: None)
    monkeypatch.setitem(sys.modules, "tests.soak.planted", SimpleNamespace(Planted=Planted))
    kept = ["--keep", str(tmp_path)]
    assert soak.main(["--seed", "7", "--only", "1", *kept]) == 1
    out = capsys.readouterr().out
    assert f"a row was lost [--seed 7 --kind planted --only 1; {tmp_path}/planted-7-1]" in out
    assert out.splitlines()[-1].split()[:3] == ["planted", "3", "1"]
    drawn = (tmp_path / "planted-7-1" / "input").read_text(encoding="utf-8")
    assert soak.main(["--seed", "7", "--only", "0", *kept]) == 0
    assert not (tmp_path / "planted-7-0").exists()
    assert soak.main(["--seed", "7", "--only", "4", *kept]) == 1
    assert "code of a file was run" in capsys.readouterr().out
    assert soak.main(["--seed", "7", "--budget", "60", *kept]) == 1, "a broken kind ends before its budget"
    assert (tmp_path / "planted-7-1" / "input").read_text(encoding="utf-8") == drawn
