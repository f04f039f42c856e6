"""t2ialign prove: measure a claim over several seeds and write it to proofs/, with a hash of the code."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from t2ialign import demo, evaluate
from t2ialign.evaluation import manifest
from t2ialign.evaluation.provenance import source_hash

SEEDS = (0, 1, 2)
NAMES = {"base": "baseline", "aligned": "scores", "difference": "difference"}
"""What a row calls a column of `evaluate`."""
GAIN = 0.10
"""Points of oracle accuracy that the demo claims."""
AT_SUITE = "at_suite_guidance"
"""The same prompts and seeds at the guidance that suits the base model best, where the gain is smaller."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("claim", choices=("demo",), help="what to prove")
    parser.add_argument(
        "--seed", type=int, action="append", choices=SEEDS, help="run only this seed; repeatable (all three)"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/prove"), help="folder of the runs (runs/prove)"
    )
    parser.add_argument("--output", type=Path, default=Path("proofs"), help="folder of the result (proofs)")


def run(args: argparse.Namespace) -> None:
    """Run the seeds that are not done yet, and write the claim once all of them are."""
    from t2ialign.shapes.suite import GUIDANCE

    _tree([folder for seed in SEEDS if (folder := _folder(args.work, seed)).exists()])
    for seed in args.seed or SEEDS:
        folder = _folder(args.work, seed)
        demo.run(argparse.Namespace(output=folder, seed=seed))
        demo.measure(folder, seed, into=folder / AT_SUITE, guidance=GUIDANCE)
    done = Path(AT_SUITE, "aligned", evaluate.SCORES)
    missing = [seed for seed in SEEDS if not (_folder(args.work, seed) / done).exists()]
    if missing:
        print(f"seeds {', '.join(map(str, missing))} are still to run before {args.output} can be written")
        return
    row = pooled([_folder(args.work, seed) for seed in SEEDS])
    args.output.mkdir(parents=True, exist_ok=True)
    manifest.write_json(args.output / "demo.json", [row])
    print(f"{row['claim']}: {row['verdict']}; wrote {args.output / 'demo.json'}")


def pooled(folders: list[Path]) -> dict[str, Any]:
    """The claim over all seeds: one bootstrap by prompt over every image of every seed."""
    from t2ialign.shapes.suite import GUIDANCE

    tree = _tree(folders)
    columns = _columns(folders)
    base, aligned, difference = (columns[name]["all"] for name in NAMES.values())
    at_suite = _columns([folder / AT_SUITE for folder in folders])
    results = [json.loads((folder / demo.RESULT).read_text()) for folder in folders]
    holds = difference.mean >= GAIN and aligned.low > base.high
    return {
        "claim": f"DPO raises held-out oracle accuracy by >= {100 * GAIN:.0f} points, 95 % intervals apart",
        "source": "t2ialign prove demo",
        "paper": None,
        "measured": {
            **{name: columns[key]["all"].to_json() for name, key in NAMES.items()},
            "by_category": {
                name: {"base": columns["baseline"][name].mean, "aligned": columns["scores"][name].mean}
                for name in columns["scores"]
                if name != "all"
            },
            "guidance": demo.SAMPLER["guidance"],
            AT_SUITE: {
                "guidance": GUIDANCE,
                **{name: at_suite[key]["all"].to_json() for name, key in NAMES.items()},
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
        "tree": tree,
    }


def _columns(folders: list[Path]) -> dict[str, evaluate.Summary]:
    """The scores of all folders together, aligned against base."""
    import rewards

    scores: dict[str, list[dict[str, Any]]] = {"base": [], "aligned": []}
    for folder in folders:
        for name, rows in scores.items():
            rows += manifest.journal(folder / name / evaluate.SCORES)
    return evaluate.summarise(rewards.load("shapes-oracle"), scores["aligned"], scores["base"])


def _tree(folders: list[Path]) -> str:
    """The hash that all runs share with today's code. Raises ValueError for a run of older code."""
    tree = source_hash()
    for folder in folders:
        found = json.loads((folder / demo.SETTINGS).read_text())["tree"]
        if found != tree:
            raise ValueError(
                f"got {folder}, measured on code {found}; expected today's, {tree}; delete it, or set --work"
            )
    return tree


def _folder(work: Path, seed: int) -> Path:
    return work / f"demo-seed-{seed}"
