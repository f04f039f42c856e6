"""Peak memory of a training step of reward back-propagation, with and without recomputation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from scripts.experiments.claim import Claim, Figure, Row
from t2ialign.io import jsonl
from t2ialign.progress import Progress

PEAKS = "peaks.jsonl"
FEW, MANY = 10, 50
MOST = 0.10
TRIM = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""For glibc, which otherwise keeps freed blocks between the small ones that live on: the resident set would
say what was once used, not what is."""


WAYS = {"recomputed": True, "naive": False}


class MemoryClaim(Claim):
    """Each step runs in a process of its own; what it had before the step does not count."""

    text = (
        f"With recomputation a training step's peak memory grows by at most {100 * MOST:.0f} % from T = "
        f"{FEW} to T = {MANY}, beyond the stored latents"
    )
    paper = "Prabhudesai et al. 2023, arXiv 2310.03739 (1 TB to 15 GB at T = 50)"
    rows_of: ClassVar[dict[str, int]] = {"recomputed": 128, "naive": 16}
    """Rows of each way: the naive step takes some 7 MB a row and sampling step. The recomputed one's graph
    takes 1.3 MB a sampling step whatever the rows: at 64 rows of this small model that alone is 11 %."""
    steps: tuple[int, ...] = (FEW, 20, MANY)

    def measure(self, folder: Path, seed: int) -> None:
        """A line for each number of steps and way."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / PEAKS
        done = {(row["way"], row["steps"]) for row in jsonl.read(file)}
        wanted = [(way, steps) for way in WAYS for steps in self.steps]
        for way, steps in Progress(wanted, desc=f"memory, seed {seed}", unit="step"):
            if (way, steps) not in done:
                found = in_new_process(steps, self.rows_of[way], WAYS[way], seed)
                jsonl.append(file, [{"way": way, "steps": steps, **found}])

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """It holds if the largest growth of all seeds is within the limit."""
        growth = {way: [self._growth(folder, way) for folder in folders] for way in WAYS}
        peaks = [row for folder in folders for row in jsonl.read(folder / PEAKS)]
        measured: dict[str, Any] = {
            "growth_by_seed": growth,
            "device": peaks[0]["device"],
            "rows": self.rows_of,
            "megabytes": {
                way: {
                    str(steps): [
                        round(row["bytes"] / 1e6, 1)
                        for row in peaks
                        if (row["way"], row["steps"]) == (way, steps)
                    ]
                    for steps in self.steps
                }
                for way in WAYS
            },
        }
        return [Row(self.text, measured, None, max(growth["recomputed"]) <= MOST)]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Megabytes by number of steps, first seed."""
        from t2ialign.web.charts import Chart, Curve, lines

        peaks = jsonl.read(folders[0] / PEAKS)
        curves = []
        for way, rows in self.rows_of.items():
            mine = sorted((row["steps"], row["bytes"] / 1e6 / rows) for row in peaks if row["way"] == way)
            curves.append(Curve(way, [steps for steps, _ in mine], [size for _, size in mine]))
        chart = Chart("Peak megabytes a row of a training step, by sampling steps", curves)
        return [Figure(chart.title, lines(chart), "above what the process held before the step")]

    def _growth(self, folder: Path, way: str) -> float:
        found = {row["steps"]: row for row in jsonl.read(folder / PEAKS) if row["way"] == way}
        latents = (MANY - FEW) * found[FEW]["latent_bytes"]
        return float((found[MANY]["bytes"] - found[FEW]["bytes"] - latents) / found[FEW]["bytes"])


def in_new_process(steps: int, batch_size: int, recompute: bool, seed: int) -> dict[str, Any]:
    """`peak` in a process of its own. Raises ValueError with its last line if it fails."""
    command = [sys.executable, "-m", "scripts.experiments.memory"]
    numbers = json.dumps({"steps": steps, "batch_size": batch_size, "recompute": recompute, "seed": seed})
    done = subprocess.run(
        [*command, numbers], capture_output=True, text=True, env={**os.environ, **TRIM}, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"got exit code {done.returncode} from the measured process: {last}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def peak(steps: int, batch_size: int, recompute: bool, seed: int) -> dict[str, Any]:
    """Bytes that one step of DRaFT on the embedded model takes above what is held before it.

    Of the GPU's allocator where there is one, else of the process (its peak resident set; Linux).
    """
    from tempfile import TemporaryDirectory

    from t2ialign.methods.backprop.trainer import Config, Trainer

    with TemporaryDirectory() as folder:
        cfg = Config(
            preset="draft",
            prompts="a red circle",
            output=Path(folder) / "run",
            num_steps=steps,
            batch_size=batch_size,
            checkpoint_steps=recompute,
            seed=seed,
            trackers=(),
        )
        trainer = Trainer(cfg)
        device = trainer.accelerator.device
        batch = trainer.batch(0, 0)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the peak of loading does not count
            before = _status("VmRSS")
        trainer.loss(batch)[0].mean().backward()
        after = torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM")
        latent = batch_size * int(torch.tensor(trainer.shape).prod()) * 4
    return {"bytes": after - before, "latent_bytes": latent, "device": str(device)}


def _status(name: str) -> int:
    """Bytes of this process as Linux tells them: VmRSS is resident now, VmHWM was at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    print(json.dumps(peak(**json.loads(sys.argv[1]))))
