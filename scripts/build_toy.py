"""Train the toy world's networks on CPU and write assets/: `python scripts/build_toy.py`.

Stages: two sets of data; vae; the two clips; two sets of latents; the denoiser on clean captions (clean-1 and
clean-2), on captions as the web has them (web) and, to measure what is left of the ability, ten minutes on
clean ones again (recovered), in two processes each; pack; the same for the transformer of the flow model
(flow-clean-1 to flow-clean-3, flow-web, flow-recovered, flow-pack). Every process that trains has one thread.
A stage that was killed goes on where it was, and one that is finished is left alone. To start over, delete
the work folder; to repeat the last stages with another seed, copy the files of the others.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from t2ialign.io.paths import path

ROOT = Path(__file__).resolve().parents[1]
GROUPS = (
    ("data-clean", "data-web"),
    ("vae",),
    ("clip", "clip-b"),
    ("latents-clean", "latents-web"),
    ("clean-1",),
    ("clean-2",),
    ("web",),
    ("recovered",),
    ("pack",),
    ("flow-clean-1",),
    ("flow-clean-2",),
    ("flow-clean-3",),
    ("flow-web",),
    ("flow-recovered",),
    ("flow-pack",),
)
VAE: dict[str, Any] = {"steps": 1600, "lr": 2e-3}
CLIP: dict[str, Any] = {"steps": 4000, "lr": 1e-3, "weight_decay": 0.02}
DENOISER: dict[str, tuple[str | None, dict[str, Any]]] = {
    "clean-1": (None, {"steps": 4500, "lr": 1e-3, "warmup": 1 / 15, "decay": 0.0, "ema": 0.999}),
    "clean-2": ("clean-1", {"steps": 6000, "lr": 1e-3, "ema": 0.999}),
    "web": ("clean-2", {"steps": 3000, "lr": 1e-3, "ema": 0.999}),
    "recovered": ("web", {"steps": 1800, "lr": 3e-4, "ema": 0.999}),
}
"""Stages of the denoiser: the one that each goes on from, and its `fit.Plan`."""
TRANSFORMER: dict[str, tuple[str | None, dict[str, Any]]] = {
    "flow-clean-1": (None, {"steps": 4000, "lr": 2e-3, "warmup": 0.1, "decay": 0.0, "ema": 0.999}),
    "flow-clean-2": ("flow-clean-1", {"steps": 5000, "lr": 2e-3, "ema": 0.999}),
    "flow-clean-3": ("flow-clean-2", {"steps": 3000, "lr": 1.5e-3, "ema": 0.999}),
    "flow-web": ("flow-clean-3", {"steps": 1500, "lr": 1e-3, "ema": 0.999}),
    "flow-recovered": ("flow-web", {"steps": 1200, "lr": 3e-4, "ema": 0.999}),
}
"""The same for the flow model."""
IMAGES, SEED = 160_000, 20
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Of a process that trains: two of them keep two cores busy, and the weights are the same each time."""


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
    parser.add_argument(
        "--stage", choices=[s for group in GROUPS for s in group], help="Run only this stage."
    )
    parser.add_argument("--seed", type=int, default=SEED, help=f"The seed of every stage (default: {SEED}).")
    args = parser.parse_args()
    if args.stage:
        run(args.stage, args.work, args.output, args.seed)
        return
    for group in GROUPS:
        environment = os.environ | ({} if group[0].endswith("pack") else ONE_THREAD)
        running = [subprocess.Popen(command(stage, args), env=environment) for stage in group]
        if any([process.wait() for process in running]):  # noqa: C419 (wait for all of them)
            sys.exit(
                f"a stage of {', '.join(group)} failed; its message is above; run the same command again"
            )


def command(stage: str, args: argparse.Namespace) -> list[str]:
    """The command of one stage, two processes of it for a denoiser."""
    two = stage in DENOISER or stage in TRANSFORMER
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if two else []
    options = [
        "--work",
        str(args.work),
        "--output",
        str(args.output),
        "--stage",
        stage,
        "--seed",
        str(args.seed),
    ]
    return [sys.executable, *launch, __file__, *options]


def run(stage: str, work: Path, output: Path, seed: int) -> None:
    """One stage, its seconds noted in `work/<stage>.done.json`."""
    import torch
    import torch.distributed as dist

    from t2ialign.toy import fit, mmdit, pack, parts, unet

    if stage not in pack.MODELS:
        torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    started, done = time.monotonic(), work / f"{stage}.done.json"
    if done.exists() and stage not in pack.MODELS:
        print(f"{stage}: finished before, in {json.loads(done.read_text())['seconds']} s")
        return
    if stage.startswith("data-"):
        name = stage.removeprefix("data-")
        parts.make_data(work, name, count=IMAGES, seed=seed if name == "clean" else seed + 1)
    elif stage == "vae":
        parts.make_vae(work, plan=fit.Plan(**VAE), seed=seed)
    elif stage == "clip":
        parts.make_clip(work, stage, plan=fit.Plan(**CLIP), seed=seed, layers=(3, 4))
    elif stage == "clip-b":
        parts.make_clip(work, stage, plan=fit.Plan(**CLIP), seed=seed + 1, layers=(2, 5))
    elif stage.startswith("latents-"):
        parts.make_latents(work, stage.removeprefix("latents-"))
    elif stage in pack.MODELS:
        pack.pack(work, output, stage, facts={"images": IMAGES, "seed": seed})
    else:
        module, stages = (unet, DENOISER) if stage in DENOISER else (mmdit, TRANSFORMER)
        start, plan = stages[stage]
        other = 10 * seed + list(stages).index(stage)  # other rows and noise than in the stage before
        module.train(work, stage, start=start, plan=fit.Plan(**plan), seed=other)
    if fit.is_main():
        done.write_text(json.dumps({"seconds": round(time.monotonic() - started)}))


if __name__ == "__main__":
    main()
