"""t2ialign sample: images from prompts, and a manifest that says what made each of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from t2ialign.cli.options import add_rendering
from t2ialign.io import manifest
from t2ialign.models import options
from t2ialign.rewriting import sampling
from t2ialign.rewriting.arguments import parse_options
from t2ialign.toy import default as toy

FLAGS = {
    "num_images_per_prompt": "-n",
    "num_candidates": "--best-of",
    "loras": "--lora",
    "rewriter_options": "--rewriter-option",
    "reward_options": "--option",
}
"""Parameters of `t2ialign.sample` and `t2ialign.best_of` whose flags have other names."""
NEEDING = {
    "rewrite": ("preset", "url", "intensity", "rewriter_option", "html"),
    "best_of": ("reward", "option"),
}
"""Flag -> flags that mean nothing without it."""
BROKEN = 3
"""Exit code when some candidate could not be judged."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("prompt", nargs="*", help="A prompt to render. Put each one in quotes.")
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="A file of more prompts: one per line in .txt, or the column prompt, caption or text of .jsonl, "
        ".json, .csv, .tsv or .parquet.",
    )
    parser.add_argument(
        "--model",
        help="The model that renders: a diffusers folder, a .safetensors or .ckpt file, a Hub id, or toy "
        "(the toy model).",
    )
    options.add_arguments(parser)
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="PATH[:SCALE]",
        help="A LoRA to apply: the folder of a run or a .safetensors file. SCALE multiplies its weights "
        "(default: 1). May be repeated.",
    )
    parser.add_argument(
        "-n", type=int, default=1, metavar="N", help="The number of images per prompt (default: 1)."
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="The seed of the first image. Each further image has the next number (default: 0).",
    )
    add_rendering(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/sample"),
        help="The folder for the images and their manifest.jsonl (default: runs/sample).",
    )
    parser.add_argument("--resume", choices=("latest",), help="Continue an interrupted run in --output.")
    sampling.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Render what is missing of the plan; the exit code is 3 if a candidate could not be judged.

    Raises ValueError for bad arguments or a folder in use.
    """
    from t2ialign import api

    _check(args)
    prompts = [*args.prompt, *([args.prompts] if args.prompts else [])]
    how = {**_rendering(args), **_rewriting(args), "output": args.output, "resume": args.resume is not None}
    if args.best_of:
        judge = {"reward": args.reward, "reward_options": parse_options(args.option, "--option")}
        samples = api.best_of(args.model, prompts, args.best_of, **judge, **how)
    else:
        samples = api.sample(args.model, prompts, **how)
    page = samples.notes.pop() if args.html is not None else None
    print(*samples.notes, sep="\n", end="\n" if samples.notes else "")
    kind = "candidates new" if args.best_of else "new"
    print(f"{len(samples)} images and {manifest.NAME} in {args.output} ({samples.new} {kind})")
    if page is not None:
        print(page)
    return BROKEN if samples.errors else 0


def _rendering(args: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `sample` that say how images are rendered."""
    return {
        "num_images_per_prompt": args.n,
        "seed": args.seed,
        "num_inference_steps": args.num_inference_steps,
        "guidance_scale": args.guidance_scale,
        "eta": args.eta,
        "height": args.height,
        "width": args.width,
        "batch_size": args.batch_size,
        "loras": args.lora,
        "precision": args.precision,
        "attention": args.attention,
        "model_options": options.options_of(args).given(),
    }


def _rewriting(args: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `sample` that say how prompts are rewritten, and the page that shows it."""
    if not args.rewrite:
        return {}
    extra = parse_options(args.rewriter_option, "--rewriter-option")
    flags = {"preset": args.preset, "url": args.url, "intensity": args.intensity}
    if clash := [key for key in ("temperature", "seed", *flags) if key in extra]:
        raise ValueError(f"got {clash[0]} as an option; expected --{clash[0]}; write it so")
    named = {key: value for key, value in flags.items() if value is not None}
    return {"rewriter": _rewriter(args), "rewriter_options": {**named, **extra}, "html": args.html}


def _rewriter(args: argparse.Namespace) -> str:
    """The rewriter by name. Raises ValueError where none is named for a model that has none of its own."""
    from t2ialign.rewriting.fit import is_toy
    from t2ialign.rewriting.load import SMALL, TOY

    if args.rewrite != sampling.UNNAMED:
        return str(args.rewrite)
    if is_toy(args.model or toy.NAME):
        return TOY
    raise ValueError(
        f"got --rewrite without a rewriter for --model {args.model}; expected its name after --rewrite; "
        f"try an instruction model, such as {', '.join(SMALL[:-1])} or {SMALL[-1]}, or rules, which needs "
        "no model"
    )


def _check(args: argparse.Namespace) -> None:
    """Raises ValueError for a flag without the one it belongs to, and a prompt in the place of a rewriter."""
    if args.best_of is not None and args.best_of < 2:
        raise ValueError(f"got --best-of {args.best_of}; expected at least 2; raise it, or leave it out")
    for flag, names in NEEDING.items():
        given = [name for name in names if getattr(args, name)]
        if given and not getattr(args, flag):
            flag, stray = (f"--{name.replace('_', '-')}" for name in (flag, given[0]))
            raise ValueError(f"got {stray} without {flag}; expected both; add {flag}, or drop {stray}")
    if args.rewrite and " " in args.rewrite and not (args.prompt or args.prompts):
        raise ValueError(
            f"got no prompt, and {args.rewrite!r} for the name of a rewriter; expected prompts before "
            "--rewrite; put it last"
        )
