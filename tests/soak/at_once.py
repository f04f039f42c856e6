"""Two runs at the same time: the second is refused in one line, and harms nothing of the first."""

import time
from pathlib import Path
from random import Random

from t2ialign.io import locks
from tests.soak.jobs import JOBS, training, whole
from tests.soak.judge import Rows, differences, faults, refusal
from tests.soak.runs import Run
from tests.soak.world import World

TOGETHER = 0.3
"""The share of tries whose two runs start in the same moment."""
FRESH = 0.1
"""The share of tries whose second run is a new interpreter, and no process forked from this one."""


class AtOnce:
    """Tries of one output, and of one cache, that two runs share."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.known: dict[str, tuple[Rows, float]] = {}
        for verb, job in JOBS.items():
            started = time.monotonic()
            rows = whole(job, world, world.root / "whole" / f"at-once-{verb}")
            self.known[verb] = rows, time.monotonic() - started

    def attempt(self, rng: Random, folder: Path) -> tuple[int, list[str]]:
        """One pair of runs -> (1, faults)."""
        verb = rng.choice([*JOBS, "cache"])
        return 1, self._cache(rng, folder) if verb == "cache" else self._output(verb, rng, folder)

    def _output(self, verb: str, rng: Random, folder: Path) -> list[str]:
        job, (expected, seconds) = JOBS[verb], self.known[verb]
        words = job.words(self.world)
        first = Run([*words, *rng.choice(([], job.resume.split()))], folder)
        delay = 0.0 if rng.random() < TOGETHER else rng.uniform(0, seconds)
        _watch(first, delay)
        over = first.poll() is not None
        second = Run([*words, *rng.choice(([], job.resume.split()))], folder, fresh=rng.random() < FRESH)
        while second.poll() is None and first.poll() is None:
            time.sleep(0.005)
        # The second ended while the first held its output, which it lets go of before it prints its result.
        overlapped = not over and first.code is None and _is_held(folder / job.output)
        first.wait()
        second.wait()
        name, shown = f"{verb}, second {delay:.2f} s later", [first, second]
        wrong = [f"{name}: {fault}" for run in shown for fault in faults(run, 0)]
        done = [run for run in shown if run.code == 0]
        if not done:
            wrong.append(f"{name}: both were refused")
        if overlapped and first.code == 0:
            wrong += [f"{name}: {fault}" for fault in refusal(second, job.output)]
        wrong += [f"{name}: {f}" for run in shown if run.code == 2 for f in refusal(run, job.output)]
        return wrong + [f"{name}: {change}" for change in differences(expected, job.read(folder))]

    def _cache(self, rng: Random, folder: Path) -> list[str]:
        """Two trainings that would build one cache, and a third that uses it."""
        delay = rng.uniform(0, 1.5)
        first = Run(self._train("a"), folder)
        _watch(first, delay)
        second = Run(self._train("b"), folder)
        runs = {"a": first.wait(), "b": second.wait()}
        runs["c"] = Run(self._train("c"), folder).wait()
        name, wrong = f"one cache, second {delay:.2f} s later", []
        for output, run in runs.items():
            wrong += [f"{name}: {fault}" for fault in faults(run, 0)]
            if run.code == 0:
                found = differences(self.known["train"][0], training(folder / output))
                wrong += [f"{name}: {output}: {change}" for change in found]
            else:
                wrong += [f"{name}: {fault}" for fault in refusal(run, "cache shared")]
        if runs["c"].code or all(runs[key].code for key in "ab"):
            wrong.append(f"{name}: exit codes {[run.code for run in runs.values()]}")
        return wrong

    def _train(self, output: str) -> list[str]:
        return [*JOBS["train"].words(self.world), f"output={output}", "cache=shared"]


def _is_held(output: Path) -> bool:
    """Whether a run holds its output."""
    hold = locks.hold_folder if output.is_dir() else locks.hold_file
    try:
        with hold(output):
            return False
    except ValueError:
        return True


def _watch(run: Run, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and run.poll() is None:
        time.sleep(0.005)
