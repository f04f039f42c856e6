"""Train the embedded world's networks on CPU and write assets/: `python scripts/build_shapes.py`.

Stages: data, then vae and clip side by side, then denoiser and clip-b side by side, then pack. Each stage is
a process of one thread (one thread gives the same weights each time, and two such processes keep two cores
busy), resumes where it was killed, and leaves what is finished alone. To start over, delete the work folder.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLAN = (("data",), ("vae", "clip"), ("denoiser", "clip-b"), ("pack",))
STEPS = {"vae": 1600, "clip": 800, "clip-b": 700, "denoiser": 4500}
IMAGES, SEED = 60_000, 20


def main() -> None:
    """Run every stage that is not finished."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs" / "build-shapes", help="intermediate files"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "assets", help="where the finished folders go")
    parser.add_argument("--stage", choices=[s for group in PLAN for s in group], help="run this stage alone")
    args = parser.parse_args()
    if args.stage:
        run(args.stage, args.work, args.output)
        return
    for group in PLAN:
        command = [
            sys.executable,
            __file__,
            "--work",
            str(args.work),
            "--output",
            str(args.output),
            "--stage",
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        running = [subprocess.Popen([*command, stage], env=environment) for stage in group]
        if any([process.wait() for process in running]):  # noqa: C419 (wait for all of them)
            sys.exit(
                f"a stage of {', '.join(group)} failed; its message is above; run the same command to go on"
            )


def run(stage: str, work: Path, output: Path) -> None:
    """One stage, timed in `work/seconds.json` style files beside its result."""
    import torch

    from t2ialign.shapes import build

    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    started, done = time.monotonic(), work / f"{stage}.done.json"
    if done.exists() and stage != "pack":
        print(f"{stage}: finished before, in {json.loads(done.read_text())['seconds']} s")
        return
    if stage == "data":
        build.make_data(work, count=IMAGES, seed=SEED)
    elif stage == "vae":
        build.make_vae(work, steps=STEPS[stage], seed=SEED)
    elif stage == "clip":
        build.make_clip(work, "clip", steps=STEPS[stage], seed=SEED, layers=(3, 4))
    elif stage == "clip-b":
        build.make_clip(work, "clip-b", steps=STEPS[stage], seed=SEED + 1, layers=(2, 5))
    elif stage == "denoiser":
        build.make_denoiser(work, steps=STEPS[stage], seed=SEED)
    else:
        build.pack(work, output, facts={"images": IMAGES, "seed": SEED})
    done.write_text(json.dumps({"seconds": round(time.monotonic() - started)}))


if __name__ == "__main__":
    main()
