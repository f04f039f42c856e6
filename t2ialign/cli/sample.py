"""t2ialign sample: images from prompts, and a manifest that says what made each of them."""

from __future__ import annotations

import argparse
import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from t2ialign.cli import best_of
from t2ialign.cli.options import add_rendering
from t2ialign.io import jsonl, locks, manifest, png_text
from t2ialign.io.paths import check_place
from t2ialign.models import options
from t2ialign.models.sources import locate
from t2ialign.rewriting import sampling
from t2ialign.toy import default as toy
from t2ialign.web.sheet import contact_sheet

if TYPE_CHECKING:
    from t2ialign.rewriting.job import Job

GRID = "grid.png"
GRID_IMAGES = 64
"""A contact sheet shows at most this many images, the first ones."""
KINDS_OF_RUN = ("rewriter", "best_of", *options.NAMES)
"""Keys of a row that only some runs have."""

Row = dict[str, Any]


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
        help="The model that renders: a diffusers folder, a .safetensors or .ckpt file, a Hub id, or shapes "
        "(the embedded toy model).",
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
    _check(args)
    if args.model is None:
        args.model = toy.NAME
        toy.announce("--model ")
    prompts, job = _prompts(args), sampling.job_of(args) if args.rewrite else None
    locate(args.model)
    check_free(args.output, resume=args.resume is not None)
    rows, opened = plan(args, prompts, job), cache(partial(_open, args))
    with locks.hold_folder(args.output):
        if job and args.best_of:
            return _best_of(args, job, rows, opened)
        return _one_each(args, job, rows, opened)


def _one_each(args: argparse.Namespace, job: Job | None, rows: list[Row], opened: Callable[[], Any]) -> int:
    """Render one image of each row, of its rewritten prompt if there is a `job`."""
    claim(args.output, rows[0], resume=args.resume is not None)
    if job is not None:
        (texts,) = sampling.texts_of(job, [row["prompt"] for row in rows], args.output)
        rows = [{**row, "rewritten": texts[row["prompt"]]} for row in rows]
    missing = pending(args.output, rows)
    render(args, missing, args.output, opened)
    finish(args.output, rows)
    print(f"{len(rows)} images and {manifest.NAME} in {args.output} ({len(missing)} new)")
    _page(args, job, rows, opened)
    return 0


def _page(args: argparse.Namespace, job: Job | None, rows: list[Row], opened: Callable[[], Any]) -> None:
    """The page of --html, if it was asked for: the prompts themselves are rendered for it."""
    if job is None or args.html is None:
        return
    folder, plans = args.output / sampling.ORIGINALS, sampling.originals(rows)
    if plans:
        folder.mkdir(exist_ok=True)
        render(args, pending(folder, plans), folder, opened)
        jsonl.rewrite(folder / manifest.NAME, plans)
    sampling.write_page(args.html, args.output, rows, job.name)


def _best_of(args: argparse.Namespace, job: Job, rows: list[Row], opened: Callable[[], Any]) -> int:
    """Render and judge the candidates of each row, and keep the best in its place."""
    import rewards
    from t2ialign.scoring.journal import answering

    prompts, settings = [row["prompt"] for row in rows], sampling.parse_options(args.option, "--option")
    name = args.reward or best_of.default_reward(args.model, settings, prompts)
    rewards.check(name, **settings)
    reward = best_of.load_reward(name, settings, args.model, prompts)
    claim(args.output, rows[0], resume=args.resume is not None)
    folder = args.output / best_of.FOLDER
    folder.mkdir(exist_ok=True)
    plans = best_of.candidates(rows, sampling.texts_of(job, prompts, args.output, args.best_of))
    missing = pending(folder, plans)
    render(args, missing, folder, opened)
    jsonl.rewrite(folder / manifest.NAME, plans)
    of = {"reward": name, "options": answering(settings)}
    scored = best_of.score(reward, of, plans, folder, batch_size=args.batch_size)
    kept = best_of.keep(args.output, scored, name)
    finish(args.output, kept)
    print(best_of.summary(scored, kept, name))
    print(f"{len(kept)} images and {manifest.NAME} in {args.output} ({len(missing)} candidates new)")
    _page(args, job, kept, opened)
    return best_of.BROKEN if any(row["error"] for row in scored) else 0


def plan(args: argparse.Namespace, prompts: Sequence[str], job: Job | None = None) -> list[Row]:
    """The manifest rows of the whole run: image i has seed `args.seed + i`, prompts in order, n of each."""
    texts = [prompt for prompt in prompts for _ in range(args.n)]
    hashes = " + ".join(_hash(parse_lora(text)[0]) for text in args.lora) or None
    kind = {"rewriter": job and job.name, "best_of": args.best_of}
    digits = max(5, len(str(len(texts) - 1)))
    return [
        {
            "file": f"{i:0{digits}d}.png",
            "prompt": prompt,
            "seed": args.seed + i,
            "adapter": " + ".join(args.lora) or None,
            "model": args.model,
            "steps": args.steps,
            "guidance": args.guidance,
            "eta": args.eta,
            "height": args.height,
            "width": args.width,
            "precision": args.precision,
            "attention": args.attention,
            "adapter_hash": hashes,
            **options.options_of(args).given(),
            **{key: value for key, value in kind.items() if value is not None},
        }
        for i, prompt in enumerate(texts)
    ]


def claim(output: Path, first: Row, *, resume: bool) -> None:
    """Make the folder of a run whose first row is this.

    Raises ValueError like `check_free`, or for a run of another kind.
    """
    check_free(output, resume=resume)
    output.mkdir(parents=True, exist_ok=True)
    file = output / manifest.NAME
    for row in jsonl.read(file)[:1]:
        kind = {key: first[key] for key in KINDS_OF_RUN if key in first}
        _check_same(row, {"file": row.get("file"), **kind}, file)


def check_free(output: Path, *, resume: bool) -> None:
    """Raises ValueError for a folder that is a file, cannot be made, or is in use without `resume`."""
    check_place(output, "--output")
    if not resume:
        locks.check_free(output, advice="continue its run with --resume latest, or ")


def pending(output: Path, rows: Sequence[Row]) -> list[Row]:
    """The rows whose image is not there yet; mends a manifest that a kill has torn.

    Raises ValueError if the folder holds a run with other settings.
    """
    file, wanted = output / manifest.NAME, {row["file"]: row for row in rows}
    found = {row.get("file"): row for row in jsonl.read(file)}
    for name, row in found.items():
        _check_same(row, wanted.get(name), file)
    whole = {name: row for name, row in found.items() if (output / str(name)).is_file()}
    if file.exists():
        jsonl.rewrite(file, whole.values())
    return [row for row in rows if row["file"] not in whole]


def _open(args: argparse.Namespace) -> Any:
    """The model with its LoRAs."""
    from t2ialign.models.load import load_policy
    from t2ialign.models.lora_apply import load_lora

    adapters = [parse_lora(text) for text in args.lora]
    policy = load_policy(
        args.model, precision=args.precision, attention=args.attention, options=options.options_of(args)
    )
    for path, scale in adapters:
        load_lora(policy, path, weight=scale)
    return policy


def render(args: argparse.Namespace, rows: Sequence[Row], output: Path, opened: Callable[[], Any]) -> None:
    """Render the rows batch by batch: each image whole on disk first, then its row in the manifest.

    opened: gives the model, if there is anything to render.
    """
    if not rows:
        return
    from t2ialign.models.generate import generate
    from t2ialign.progress import Progress

    policy = opened()
    with Progress(total=len(rows), desc="sample", unit="image") as bar:
        for batch in _batches(rows, args.batch_size):
            images = generate(
                policy,
                [row["rewritten"] if "rewritten" in row else row["prompt"] for row in batch],
                [row["seed"] for row in batch],
                num_steps=args.steps,
                guidance=args.guidance,
                eta=args.eta,
                height=args.height,
                width=args.width,
                batch_size=args.batch_size,
            )
            for image, row in zip(images, batch, strict=True):
                picture = to_pil(image)
                png_text.save(picture, output / row["file"], png_text.image_text(row, picture.size))
            jsonl.append(output / manifest.NAME, batch)
            bar.update(len(batch))


def finish(output: Path, rows: Sequence[Row]) -> None:
    """Put the manifest in the order of the plan, which a resumed run may have left, and draw the grid."""
    jsonl.rewrite(output / manifest.NAME, rows)
    per_prompt = sum(row["prompt"] == rows[0]["prompt"] for row in rows)
    columns = per_prompt if 1 < per_prompt <= 12 else math.ceil(math.sqrt(min(len(rows), GRID_IMAGES)))
    shown = rows[: max(columns, GRID_IMAGES // columns * columns)]
    images = [Image.open(output / row["file"], formats=["PNG"]) for row in shown]
    text = png_text.grid_text(shown, columns, images[0].size)
    png_text.save(contact_sheet(images, columns), output / GRID, text)


def parse_lora(text: str) -> tuple[Path, float]:
    """ "PATH" or "PATH:SCALE" -> (path, scale). Raises ValueError for a scale that is not a finite number."""
    path, colon, scale = text.rpartition(":")
    drive = re.fullmatch(r"[A-Za-z]:[\\/][^:]*", text)  # of Windows
    if not colon or drive or Path(text).exists():
        return Path(text), 1.0
    try:
        value = float(scale)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"got --lora {text!r}; expected PATH or PATH:SCALE; give the scale as a number")
    return Path(path), value


def to_pil(image: Any) -> Image.Image:
    """Tensor (3, H, W) in [0, 1] -> 8-bit picture."""
    pixels = image.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels)


def _check(args: argparse.Namespace) -> None:
    for name, least in (("n", 1), ("seed", 0), ("steps", 1), ("batch_size", 1), ("eta", 0), ("guidance", 1)):
        value = getattr(args, name)
        if not least <= value < math.inf:
            flag = "-n" if name == "n" else f"--{name.replace('_', '-')}"
            raise ValueError(f"got {flag} {value}; expected a number from {least}; change it")
    sampling.check(args)
    for text in args.lora:
        path, _ = parse_lora(text)
        if not path.exists():
            raise ValueError(f"got --lora {text}; expected an existing file or folder; check the path")


def _prompts(args: argparse.Namespace) -> list[str]:
    from t2ialign.data.prompts import read_prompts

    found = [*args.prompt, *(read_prompts(args.prompts) if args.prompts else [])]
    if not found or not all(prompt.strip() for prompt in found):
        raise ValueError(
            "got no prompt, or an empty one; expected some text; quote a prompt or use --prompts"
        )
    return found


def _check_same(found: Row, wanted: Row | None, file: Path) -> None:
    if wanted is None:
        raise ValueError(
            f"got {found.get('file')} in {file}; expected only images of this run; choose --output"
        )
    for key in dict.fromkeys([*wanted, *KINDS_OF_RUN]):
        value = wanted.get(key)
        if found.get(key) != value:
            raise ValueError(
                f"got {key}={found.get(key)!r} for {wanted['file']} in {file}; expected {value!r}, as asked "
                "now; repeat the settings of that run, or choose another --output"
            )


def _hash(lora: Path) -> str:
    """Of the LoRA's weights: a run that trains on writes other ones to the same path."""
    from t2ialign.models.lora_files import lora_file

    with lora_file(lora).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _batches(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
