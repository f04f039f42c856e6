"""python scripts/bench_score.py [--device cuda] [--only call,textnorm] [-o bench.json]

How fast scoring is, on full-size CLIPs with random weights: up to 14 GB of memory and 7 GB of temporary
files. The sides of a measure run in turn, once to warm up and then --repeats times; the figure is the median
of the ratios of one round. All of it takes about 20 minutes on two cores: --only, --clips and --images make
it shorter, and --small tries the script itself in seconds.

  end       JPEG files to a parquet table by t2ialign.scoring, against the bare batched forward of the tower
  call      hpsv2, one image a call, against reading the checkpoint in each call
  tensors   a batch of images in memory, against imscore's call, which encodes the prompt of every image
  batch     a call with a batch, against a call for each image
  together  aesthetic and CLIPScore on one tower, against CLIPScore alone
  forwards  how many of images and of texts 64 images of 4 prompts take
  textnorm  TextNorm with 32 contrasts, against its base
  start     `import rewards` and `t2ialign score --help`, in fresh processes
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import torch

from rewards import TwoTower, score_all
from rewards.scorers.aesthetic import Aesthetic
from rewards.scorers.textnorm import TextNorm
from scripts.bench_calls import call, tensors
from scripts.bench_files import end, forwards
from scripts.bench_parts import (
    CLIPS,
    SIDE,
    Bench,
    Row,
    facts,
    number,
    prompt,
    ratio,
    say,
    table,
    write,
)
from t2ialign.io.paths import path as path_type

ROOT = Path(__file__).resolve().parents[1]
B, L, H = CLIPS
SAMPLES = {"cpu": 16, "cuda": 50}
"""Images of a prompt in the measure `textnorm`. Fewer are harder: the texts are as many for any number."""
BATCH, CONTRASTS = 64, 32
START = {
    "import rewards": ("import rewards", "<= 0.2"),
    "t2ialign score --help": (
        "from t2ialign.cli.main import main\ntry: main(['score', '--help'])\nexcept SystemExit: pass",
        None,
    ),
}
AROUND = (
    "import sys, time\nbegin = time.perf_counter()\n{}\nseconds = time.perf_counter() - begin\n"
    "print()\nprint(seconds, *sys.modules)"
)


def batch(bench: Bench) -> Iterator[Row]:
    """Times of a batch in one call and in as many calls, with new prompts and with known ones."""
    if B not in bench.clips:
        return
    reward, rows = bench.score(B), bench.num_images or BATCH
    images, prompts = bench.images(rows), [prompt(index) for index in range(rows)]

    def run(size: int, new: bool) -> None:
        if new:
            reward.tower.forget()
        for start in range(0, rows, size):
            reward(images[start : start + size], prompts[start : start + size])

    sides: dict[str, Callable[[], object]] = {
        "batched": lambda: run(rows, True),
        "single": lambda: run(1, True),
        "batched, known": lambda: run(rows, False),
        "single, known": lambda: run(1, False),
    }
    times, on = bench.time(sides), f"{B}, {rows} images of {SIDE}x{SIDE}"
    yield ratio("one by one: times as long, new prompts", on, times, "single / batched", ">= 1.3")
    sides_known = "single, known / batched, known"
    yield ratio("one by one: times as long, known prompts", on, times, sides_known, ">= 1.3")


def together(bench: Bench) -> Iterator[Row]:
    """Two rewards on one tower; prompts new to it each time."""
    if L not in bench.clips:
        return
    score = bench.score(L)
    size, device = score.tower.texts([prompt(0)]).shape[1], bench.device
    aesthetic = Aesthetic(score.tower, torch.randn(size), torch.zeros(()), score.geometry).to(device)
    rows = bench.num_images or (64 if device.type == "cuda" else 8)
    images, prompts = bench.images(rows), [prompt(index // 4) for index in range(rows)]
    scorers: dict[str, TwoTower] = {"clipscore": score, "aesthetic": aesthetic}
    passed: list[int] = []

    def run(*names: str) -> None:
        score.tower.forget()
        score_all({name: scorers[name] for name in names}, images, prompts)

    visual = bench.tower(L).model.visual
    hook = visual.register_forward_pre_hook(lambda *_: passed.append(1))
    with torch.no_grad():
        run(*scorers)
    hook.remove()
    on = f"{L}, {rows} images of {SIDE}x{SIDE}"
    yield number("image forwards for both", on, len(passed), "<= 1")
    times = bench.time({"both": lambda: run(*scorers), "clipscore": lambda: run("clipscore")})
    yield ratio("aesthetic and CLIPScore: times as long", on, times, "both / clipscore", "<= 1.05")


def textnorm(bench: Bench) -> Iterator[Row]:
    """TextNorm of each larger CLIP, for the images of one prompt."""
    for clip in bench.clips:
        if clip != B:
            yield from textnorm_of(bench, clip)


def textnorm_of(bench: Bench, clip: str) -> Iterator[Row]:
    """Against its base at its best: the base knows the prompt in every round."""
    base, rows = bench.score(clip), bench.num_images or SAMPLES[bench.device.type]
    images, prompts = bench.images(rows), [prompt(0)] * rows
    norm = TextNorm(base, {prompt(0): [prompt(index + 1) for index in range(CONTRASTS)]}, scale=100.0)

    def new() -> None:
        base.tower.forget()
        norm(images, prompts)

    sides: dict[str, Callable[[], object]] = {
        "base": lambda: base(images, prompts),
        "new texts": new,
        "known texts": lambda: norm(images, prompts),
    }
    times, on = bench.time(sides), f"{clip}, {rows} images of {SIDE}x{SIDE}, {CONTRASTS} contrasts"
    for side in ("new texts", "known texts"):
        yield ratio(f"TextNorm, {side}: times as long", on, times, f"{side} / base", "<= 1.15")


def start(bench: Bench) -> Iterator[Row]:
    """Seconds inside a fresh process, and what it imports."""
    for name, (code, target) in START.items():
        seconds, loaded = [], set[str]()
        for _ in range(bench.repeats + 1):
            command = [sys.executable, "-c", AROUND.format(code)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
            took, *modules = done.stdout.splitlines()[-1].split()
            seconds.append(float(took))
            loaded |= {"torch", "diffusers"} & set(modules)
        kept = seconds[1:]
        yield Row(f"{name}: seconds", "fresh process", median(kept), min(kept), max(kept), target)
        yield number(f"{name}: imports of torch and diffusers", "fresh process", len(loaded), "<= 0")


MEASURES = {f.__name__: f for f in (end, call, tensors, batch, together, forwards, textnorm, start)}


def parser_of_options() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--only", default=",".join(MEASURES), help="The measures to run, separated by commas (default: all)."
    )
    parser.add_argument(
        "--clips",
        default=",".join(CLIPS),
        help=f"The architectures to time, by comma (default: {', '.join(CLIPS)})",
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="The number of timed rounds after a first one (default: 5)."
    )
    parser.add_argument(
        "--images",
        type=int,
        help="The number of images of a timed measure (default: one that suits the device).",
    )
    parser.add_argument("--workers", type=int, help="The number of processes that decode images.")
    parser.add_argument(
        "--threads", type=int, help="The number of threads of torch (default: its own choice)."
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="The number format; bf16 is autocast (default: fp32).",
    )
    parser.add_argument("--small", action="store_true", help="Use tiny models, to try the script.")
    parser.add_argument(
        "-o", "--output", type=path_type, help="A JSON file for the rows, written after each measure."
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line; returns 0 whatever the verdicts are."""
    parser = parser_of_options()
    args = parser.parse_args(argv)
    for given, known in ((args.only, MEASURES), (args.clips, CLIPS)):
        if odd := set(given.split(",")) - set(known):
            parser.error(f"got {', '.join(sorted(odd))}; expected some of {','.join(known)}; change it")
    if args.repeats < 1 or (args.images is not None and args.images < 1):
        parser.error(f"got --repeats {args.repeats} --images {args.images}; expected at least 1; change it")
    if args.threads:
        torch.set_num_threads(args.threads)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, Path(folder))
        about = facts(bench)
        for name in args.only.split(","):
            say(f"{name}:")
            for row in MEASURES[name](bench):
                rows.append(row)
                say(f"{row.figure}, {row.on}: {row.value:.4g} ({row.verdict})")
            if args.output:
                write(args.output, about, rows)
    print(table(about, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
