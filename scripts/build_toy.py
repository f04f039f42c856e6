"""Train the toy world's networks on CPU and write assets/: `python scripts/build_toy.py`.

Stages: data; vae beside clip and clip-b; latents; denoiser in two processes; pack. Every process has one
thread (which gives the same weights each time, and two such processes keep two cores busy), a stage that was
killed goes on where it was, and one that is finished is left alone. To start over, delete the work folder.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from t2ialign.io.paths import path

ROOT = Path(__file__).resolve().parents[1]
PLAN = (("data",), ("vae", "clips"), ("latents",), ("denoiser",), ("pack",))
STEPS = {"vae": 1600, "clip": 900, "clip-b": 900, "denoiser": 4500}
IMAGES, SEED = 60_000, 20


def main() -> None:
    """Run every stage that is not finished."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=path, default=ROOT / "runs" / "build-toy", help="The folder for intermediate files."
    )
    parser.add_argument(
        "--output",
        type=path,
        default=ROOT / "assets",
        help="The folder that the finished folders are written to.",
    )
    parser.add_argument("--stage", choices=[s for group in PLAN for s in group], help="Run only this stage.")
    args = parser.parse_args()
    if args.stage:
        run(args.stage, args.work, args.output)
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for group in PLAN:
        running = [subprocess.Popen(command(stage, args), env=environment) for stage in group]
        if any([process.wait() for process in running]):  # noqa: C419 (wait for all of them)
            sys.exit(
                f"a stage of {', '.join(group)} failed; its message is above; run the same command again"
            )


def command(stage: str, args: argparse.Namespace) -> list[str]:
    """The command of one stage, two processes of it for the denoiser."""
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if stage == "denoiser" else []
    )
    options = ["--work", str(args.work), "--output", str(args.output), "--stage", stage]
    return [sys.executable, *launch, __file__, *options]


def run(stage: str, work: Path, output: Path) -> None:
    """One stage, its seconds noted in `work/<stage>.done.json`."""
    import torch
    import torch.distributed as dist

    from t2ialign.toy import build, fit

    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    started, done = time.monotonic(), work / f"{stage}.done.json"
    if done.exists() and stage != "pack":
        print(f"{stage}: finished before, in {json.loads(done.read_text())['seconds']} s")
        return
    if stage == "data":
        build.make_data(work, count=IMAGES, seed=SEED)
    elif stage == "vae":
        build.make_vae(work, steps=STEPS[stage], seed=SEED)
    elif stage == "clips":
        build.make_clip(work, "clip", steps=STEPS["clip"], seed=SEED, layers=(3, 4))
        build.make_clip(work, "clip-b", steps=STEPS["clip-b"], seed=SEED + 1, layers=(2, 5))
    elif stage == "latents":
        build.make_latents(work)
    elif stage == "denoiser":
        build.make_denoiser(work, steps=STEPS[stage], seed=SEED)
    else:
        build.pack(work, output, facts={"images": IMAGES, "seed": SEED})
    if fit.is_main():
        done.write_text(json.dumps({"seconds": round(time.monotonic() - started)}))


if __name__ == "__main__":
    main()
