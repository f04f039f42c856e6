"""t2ialign prove: measure a claim over several seeds and write it to proofs/, with a hash of the code."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from t2ialign import demo, evaluate
from t2ialign.evaluation import manifest

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (0, 1, 2)
GAIN = 0.10
"""Points of oracle accuracy that the demo claims."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("claim", choices=("demo",), help="what to prove")
    parser.add_argument("--seed", type=int, action="append", help="run only this seed; repeatable (0, 1, 2)")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/prove"), help="folder of the runs (runs/prove)"
    )
    parser.add_argument("--output", type=Path, default=Path("proofs"), help="folder of the result (proofs)")


def run(args: argparse.Namespace) -> None:
    """Run the seeds that are not done yet, and write the claim once all of them are."""
    for seed in args.seed or SEEDS:
        demo.run(argparse.Namespace(output=_folder(args.work, seed), seed=seed))
    missing = [seed for seed in SEEDS if not (_folder(args.work, seed) / demo.RESULT).exists()]
    if missing:
        print(f"seeds {', '.join(map(str, missing))} are still to run before {args.output} can be written")
        return
    row = pooled([_folder(args.work, seed) for seed in SEEDS])
    args.output.mkdir(parents=True, exist_ok=True)
    manifest.write_json(args.output / "demo.json", [row])
    print(f"{row['claim']}: {row['verdict']}; wrote {args.output / 'demo.json'}")


def pooled(folders: list[Path]) -> dict[str, Any]:
    """The claim over all seeds: one bootstrap by prompt over every image of every seed."""
    import rewards

    scores: dict[str, list[dict[str, Any]]] = {"base": [], "aligned": []}
    for folder in folders:
        for name, rows in scores.items():
            rows += manifest.journal(folder / name / evaluate.SCORES)
    columns = evaluate.summarise(rewards.load("shapes-oracle"), scores["aligned"], scores["base"])
    base, aligned, difference = (columns[name]["all"] for name in ("baseline", "scores", "difference"))
    results = [json.loads((folder / demo.RESULT).read_text()) for folder in folders]
    holds = difference.mean >= GAIN and aligned.low > base.high
    return {
        "claim": f"DPO raises held-out oracle accuracy by >= {100 * GAIN:.0f} points, 95 % intervals apart",
        "source": "t2ialign prove demo",
        "paper": None,
        "measured": {
            "base": base.to_json(),
            "aligned": aligned.to_json(),
            "difference": difference.to_json(),
            "by_category": {
                name: {"base": columns["baseline"][name].mean, "aligned": columns["scores"][name].mean}
                for name in columns["scores"]
                if name != "all"
            },
            "by_seed": [
                {name: result[name]["accuracy"] for name in ("base", "aligned")}
                | {"seconds": result["seconds"]}
                for result in results
            ],
        },
        "ci95": [difference.low, difference.high],
        "seeds": list(SEEDS),
        "seconds": sum(result["seconds"] for result in results),
        "verdict": "holds" if holds else "does not hold",
        "tree": source_hash(ROOT),
    }


def source_hash(root: Path) -> str:
    """A hash of every Python file and weight that the product runs: a proof is of this code and no other."""
    digest = hashlib.sha256()
    for folder, pattern in (("rewards", "*.py"), ("t2ialign", "*.py"), ("assets", "*.safetensors")):
        for file in sorted((root / folder).rglob(pattern)):
            digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _folder(work: Path, seed: int) -> Path:
    return work / f"demo-seed-{seed}"
