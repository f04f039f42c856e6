"""Kills at any moment, then the same command again: nothing may be lost, doubled or changed."""

import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.soak.jobs import JOBS
from tests.soak.judge import differences, faults
from tests.soak.runs import Run
from tests.soak.world import World

COUNTED = ("replace", "rename", "fsync", "unlink", "mkdir", "open")
"""Calls of the operating system by which files get names and contents that stay."""
COUNT = "calls"
POLITE = (signal.SIGINT, signal.SIGTERM)


def before(at: int = 0) -> Callable[[], None]:
    """For a forked process: it dies at its call number `at`; with 0 it counts them into a file."""

    def arrange() -> None:
        from t2ialign.scoring import journal

        journal.EVERY = 0.0  # rows are on disk at once: there is more to be killed in
        seen = [0]
        count = os.open(COUNT, os.O_CREAT | os.O_WRONLY) if not at else -1

        def counting(real: Callable[..., object]) -> Callable[..., object]:
            @functools.wraps(real)
            def call(*arguments: object, **options: object) -> object:
                seen[0] += 1
                if not at:
                    os.pwrite(count, b"%d" % seen[0], 0)
                elif seen[0] == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            return call

        for name in COUNTED:
            setattr(os, name, counting(getattr(os, name)))

    return arrange


class Kills:
    """Tries that kill one command up to three times."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.known = {}
        for verb, job in JOBS.items():
            folder = world.root / "whole" / f"kills-{verb}"
            folder.mkdir(parents=True)
            run = Run(job.words(world), folder, before=before()).wait()
            assert run.code == 0, run.text
            self.known[verb] = job.read(folder), int((folder / COUNT).read_text()), run.seconds
            assert self.known[verb][0], f"{verb} left nothing behind"

    def attempt(self, rng: Random, folder: Path) -> tuple[int, list[str]]:
        """One command, killed and run again -> how many kills, and the faults."""
        verb = rng.choice(list(JOBS))
        job, (expected, calls, seconds) = JOBS[verb], self.known[verb]
        words, wrong, died = [*job.words(self.world), *job.resume.split()], [], 0
        for _ in range(rng.randint(1, 3)):
            stop = rng.choice((signal.SIGKILL,) * 4 + POLITE)
            if rng.random() < 0.6 and stop == signal.SIGKILL:
                call = rng.randint(1, calls)
                run, how = Run(words, folder, before=before(call)).wait(), f"call {call}"
            else:
                age = rng.uniform(0.02, seconds)
                run = Run(words, folder, before=before(10**9)).wait(kill_after=age, stop=stop)
                how = f"{age:.3f} s"
            ends = {-signal.SIGKILL, -stop, 128 + stop}
            wrong += [f"{verb}, {stop.name} at {how}: {fault}" for fault in faults(run, 0, *ends)]
            died += run.code not in (0, 2)
        last = Run(words, folder).wait()
        wrong += [f"{verb}, run again after kills: {fault}" for fault in faults(last, 0)]
        if last.code == 0:
            wrong += [f"{verb}, after kills: {change}" for change in differences(expected, job.read(folder))]
        elif not wrong:
            wrong.append(f"{verb} cannot go on: {last.errors}")
        return max(1, died), wrong
