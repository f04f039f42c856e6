"""Peak memory of a training step of reward back-propagation, with and without recomputation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from scripts.experiments.claim import Claim, Figure, Row, resumable
from scripts.experiments.estimates import judged, line_figure
from t2ialign.evaluation.provenance import LoadedFiles, add_to_record
from t2ialign.io import jsonl

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

        def measured(item: Mapping[str, Any]) -> dict[str, Any]:
            way = item["way"]
            peak_of_step = in_new_process(item["steps"], self.rows_of[way], WAYS[way], seed)
            add_to_record(folder, peak_of_step.pop("loaded"))
            return peak_of_step

        items = [{"way": way, "steps": steps} for way in WAYS for steps in self.steps]
        resumable(folder / PEAKS, items, measured, f"memory, seed {seed}")

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """It holds if the largest growth of all seeds is within the limit."""
        each_seed = [_by_way(folder) for folder in folders]
        growth = {way: [_growth(peaks[way]) for peaks in each_seed] for way in WAYS}

        def megabytes(way: str, steps: int) -> list[float]:
            return [round(peaks[way][steps]["bytes"] / 1e6, 1) for peaks in each_seed]

        measured: dict[str, Any] = {
            "growth_by_seed": growth,
            "device": each_seed[0]["recomputed"][FEW]["device"],
            "rows": self.rows_of,
            "megabytes": {way: {str(steps): megabytes(way, steps) for steps in self.steps} for way in WAYS},
        }
        return [judged(self.text, measured, None, max(growth["recomputed"]) <= MOST)]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Megabytes by number of steps, first seed."""
        peaks = _by_way(folders[0])
        curves = {
            way: {steps: peaks[way][steps]["bytes"] / 1e6 / rows for steps in sorted(peaks[way])}
            for way, rows in self.rows_of.items()
        }
        title = "Peak megabytes a row of a training step, by sampling steps"
        return [line_figure(title, curves, "above what the process held before the step")]


def _by_way(folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Way -> number of sampling steps -> the line that was measured."""
    lines = jsonl.read(folder / PEAKS)
    return {way: {line["steps"]: line for line in lines if line["way"] == way} for way in WAYS}


def _growth(peaks: dict[int, dict[str, Any]]) -> float:
    """The share by which the peak grows from FEW to MANY steps, beyond the latents that are stored."""
    latents = (MANY - FEW) * peaks[FEW]["latent_bytes"]
    return float((peaks[MANY]["bytes"] - peaks[FEW]["bytes"] - latents) / peaks[FEW]["bytes"])


def in_new_process(steps: int, batch_size: int, recompute: bool, seed: int) -> dict[str, Any]:
    """`peak` in a process of its own. Raises ValueError with its last line if it fails."""
    numbers = json.dumps({"steps": steps, "batch_size": batch_size, "recompute": recompute, "seed": seed})
    command = [sys.executable, "-m", "scripts.experiments.memory", numbers]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **TRIM}, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"got exit code {done.returncode} from the measured process: {last}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def peak(steps: int, batch_size: int, recompute: bool, seed: int) -> dict[str, Any]:
    """Bytes that one step of DRaFT on the toy model takes above what is held before it.

    Of the GPU's allocator where there is one, else of the process (its peak resident set; Linux).
    """
    from tempfile import TemporaryDirectory

    from t2ialign.methods.backprop.trainer import Config, Trainer

    with TemporaryDirectory() as folder:
        sizes: dict[str, Any] = {"num_inference_steps": steps, "batch_size": batch_size, "seed": seed}
        run: dict[str, Any] = {"output": Path(folder) / "run", "trackers": (), "checkpoint_steps": recompute}
        trainer = Trainer(Config(preset="draft", prompts="a red circle", **sizes, **run))
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


def main(arguments: str) -> None:
    """Print `peak` of these arguments, and the project's files that it loaded."""
    loaded = LoadedFiles()
    print(json.dumps({**peak(**json.loads(arguments)), "loaded": loaded.hashes()}))


if __name__ == "__main__":
    main(sys.argv[1])
