"""Writes what a watched and judged run leaves, with numbers that a test gives."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.experiments.training import ORACLE
from t2ialign.io import atomic, jsonl

Numbers = Callable[[int, int], Mapping[str, float]]
"""Step and number of a prompt -> numbers by name."""


def write(
    folder: Path, passed: Mapping[int, Sequence[float]], scores: Numbers, statistics: Numbers = lambda *_: {}
) -> None:
    """The journal of the monitor, one image a prompt, and the oracle's verdicts by step."""
    monitor, prompts = folder / "run" / "monitor", [f"caption {i}" for i in range(len(passed[0]))]
    monitor.mkdir(parents=True)
    about: dict[str, Any] = {"method": "backprop", "model": "toy", "trained": "toy-clip", "embedding": None}
    about |= {"prompts": prompts, "images": 1, "steps": 20, "guidance": 4.0}
    atomic.write_json(monitor / "about.json", about)
    rows = [
        {
            **{"step": step, "prompt": prompt, "seed": i, "file": ""},
            **{"scores": scores(step, i), "statistics": statistics(step, i)},
        }
        for step in passed
        for i, prompt in enumerate(prompts)
    ]
    jsonl.append(monitor / "scores.jsonl", rows)
    atomic.write_json(folder / ORACLE, {str(step): verdicts for step, verdicts in passed.items()})
