"""Tools of the benchmarks: rounds and the table; checkpoints and images for bench_score.py."""

import argparse
import io
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from rewards import Geometry
from rewards.scorers.clip import ClipScore
from rewards.towers.clip_towers import ClipTower, load_tower

SIDE = 512
"""The side of every image, in pixels."""
CLIPS = "ViT-B-32-quickgelu", "ViT-L-14-quickgelu", "ViT-H-14"
"""Architectures that are timed, the smallest first."""
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
"""The architecture that --small puts in place of every other."""


@dataclass
class Row:
    """One figure: a ratio, seconds or a count, its range over the rounds, and what the issue asks for."""

    figure: str
    on: str
    value: float
    low: float
    high: float
    target: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Median of each side."""

    @property
    def verdict(self) -> str:
        """Whether the target is met."""
        if self.target is None:
            return "reported"
        sign, number = self.target.split()
        met = self.value >= float(number) if sign == ">=" else self.value <= float(number)
        return "holds" if met else "does not hold"


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call it."""
        self.calls += 1
        return self.function(*args, **options)


class Bench:
    """Towers and images that the measures share, and how two sides are compared."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.device, self.small, self.folder = torch.device(args.device), args.small, folder
        self.repeats, self.bf16, self.clips = args.repeats, args.precision == "bf16", args.clips.split(",")
        self.workers = 0 if args.small else args.workers
        self.num_images = 4 if args.small else args.images
        self.towers: dict[str, ClipTower] = {}

    def checkpoint(self, clip: str) -> Path:
        """A file of random weights in open_clip's layout, its configuration beside it."""
        path = self.folder / clip / "open_clip_pytorch_model.bin"
        if path.exists():
            return path
        config = open_clip.get_model_config(clip)
        if self.small:
            config = TINY
        with torch.device("meta"):
            model = open_clip.CLIP(**config)
        state = {name: filled(name, value) for name, value in model.state_dict().items()}
        path.parent.mkdir()
        (path.parent / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
        torch.save({"state_dict": state}, path)
        return path

    def tower(self, clip: str) -> ClipTower:
        """The one tower of this name, on the device."""
        if clip not in self.towers:
            self.towers[clip] = load_tower(str(self.checkpoint(clip))).to(self.device)
        return self.towers[clip]

    def score(self, clip: str) -> ClipScore:
        """The cosine on that tower."""
        tower = self.tower(clip)
        return ClipScore(tower, Geometry(tower.size)).eval()

    def images(self, number: int) -> torch.Tensor:
        """(number, 3, SIDE, SIDE) in [0, 1]"""
        torch.manual_seed(0)
        return torch.rand(number, 3, SIDE, SIDE).to(self.device)

    def time(self, sides: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
        """`rounds` without gradients, in the precision asked for."""
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return rounds(sides, self.repeats, self.device)


def rounds(
    sides: dict[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each side in each round, said as they come; every other round runs backwards."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        now: dict[str, float] = {}
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            wait(device)
            begin = time.perf_counter()
            sides[name]()
            wait(device)
            now[name] = time.perf_counter() - begin
            found[name] += [now[name]] if turn else []
        seconds = ", ".join(f"{name} {now[name]:.3g} s" for name in sides)
        say(f"  {f'round {turn} of {repeats}' if turn else 'warm-up'}: {seconds}")
    return found


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def filled(name: str, like: torch.Tensor) -> torch.Tensor:
    """Random weights of this shape, norms that do nothing, and CLIP's factor of 100 on cosines."""
    if like.ndim == 1 and name.endswith(("weight", "bias")):
        return torch.full(like.shape, float(name.endswith("weight")))
    return torch.full((), 4.6052) if like.ndim == 0 else torch.empty(like.shape).uniform_(-0.04, 0.04)


def ratio(figure: str, on: str, times: dict[str, list[float]], sides: str, target: str | None) -> Row:
    """The row of sides "over / under": the median over the rounds of the ratio in one round."""
    over, under = sides.split(" / ")
    each = [a / b for a, b in zip(times[over], times[under], strict=True)]
    seconds = {name: median(times[name]) for name in (over, under)}
    return Row(figure, on, median(each), min(each), max(each), target, seconds)


def number(figure: str, on: str, value: float, target: str | None = None) -> Row:
    """The row of one number."""
    return Row(figure, on, value, value, value, target)


def megabytes(*modules: torch.nn.Module) -> float:
    """The megabytes of the weights of some networks."""
    return sum(p.nbytes for module in modules for p in module.parameters()) / 1e6


def kept_bytes(loss: Callable[[], torch.Tensor], modules: Sequence[torch.nn.Module]) -> int:
    """The bytes that a loss keeps for its backward pass, the weights of `modules` left out."""
    own = {p.untyped_storage().data_ptr() for module in modules for p in module.parameters()}
    kept: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        graph = loss()
    found = sum(size for pointer, size in kept.items() if pointer not in own)
    del graph
    return found


def jpegs(folder: Path, files: int, *, share: int = 4) -> list[str]:
    """Write JPEG files, 64 different ones, each with its prompt beside; `share` in a row have the same."""
    rng, kinds, prompts = np.random.default_rng(0), [], []
    for _ in range(min(files, 64)):
        rough = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).resize((SIDE, SIDE))
        noisy = np.asarray(rough) + rng.normal(0, 5, (SIDE, SIDE, 3))
        stream = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "jpeg", quality=90)
        kinds.append(stream.getvalue())
    folder.mkdir()
    for index in range(files):
        prompts.append(prompt(index // share))
        (folder / f"{index:05d}.jpg").write_bytes(kinds[index % len(kinds)])
        (folder / f"{index:05d}.txt").write_text(prompts[-1])
    return prompts


def prompt(index: int) -> str:
    """A prompt of usual length, another one for each index."""
    return f"a photo of {index} red cubes to the left of a small wooden table, soft light from a window"


def facts(bench: Bench) -> dict[str, str | int | float]:
    """The machine and the settings that figures depend on."""
    return {
        **machine(bench.device, bench.repeats),
        "precision": "bf16 autocast" if bench.bf16 else "fp32",
        "sizes": "tiny: no figure here means anything" if bench.small else "full",
    }


def machine(device: torch.device, repeats: int) -> dict[str, str | int | float]:
    """The facts that any figure depends on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else platform.processor() or platform.machine()
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "device": f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "rounds": repeats,
        "load before": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
    }


def say(line: str) -> None:
    """Print the progress to stderr, apart from the table."""
    print(line, file=sys.stderr, flush=True)


def table(about: Mapping[str, object], rows: Sequence[Row]) -> str:
    """The rows in Markdown, under the facts."""
    lines = [("figure", "on", "value", "range", "target", "verdict", "seconds"), ("---",) * 7]
    for row in rows:
        spread = f"{row.low:.4g} .. {row.high:.4g}" if row.low < row.high else ""
        seconds = ", ".join(f"{side} {value:.4g}" for side, value in row.seconds.items())
        lines.append((row.figure, row.on, f"{row.value:.4g}", spread, row.target or "", row.verdict, seconds))
    head = ", ".join(f"{name}: {value}" for name, value in about.items())
    return "\n".join([head, "", *("| " + " | ".join(line) + " |" for line in lines)])


def write(path: Path, about: Mapping[str, object], rows: Sequence[Row]) -> None:
    """The facts and the rows, as JSON."""
    found = [{**asdict(row), "verdict": row.verdict} for row in rows]
    path.write_text(json.dumps({"about": dict(about), "rows": found}, indent=1) + "\n", encoding="utf-8")
