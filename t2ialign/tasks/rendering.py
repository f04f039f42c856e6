"""Images from prompts, into a folder or into memory; a killed run goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from t2ialign.io import jsonl, locks, manifest, naming, png_text
from t2ialign.models.sources import locate
from t2ialign.rewriting import sampling
from t2ialign.rewriting.job import Job
from t2ialign.tasks.arguments import is_name, log, name_of, policy_of
from t2ialign.tasks.folder import check_free, claim, finish, pending
from t2ialign.tasks.plan import Rendering, Row, kind_of, parse_lora, plan
from t2ialign.tasks.samples import Samples
from t2ialign.toy import default as toy

Opened = Callable[[], Any]
"""Gives the policy, which is loaded once, if there is anything to render."""


@dataclass(frozen=True)
class Rewriting:
    """How prompts are rewritten before they are rendered, and the page that shows it."""

    job: Job
    html: Path | None = None


def run(
    how: Rendering,
    prompts: Sequence[str],
    output: Path | None,
    *,
    resume: bool = False,
    rewriting: Rewriting | None = None,
) -> Samples:
    """Render one image of each row of the plan, of its rewritten prompt where there is `rewriting`.

    Raises ValueError for a folder in use, one of other settings, and a model that is not there.
    """
    how = named(how)
    rows = plan(how, prompts, **kind_of(rewriting.job if rewriting else None))
    with place(how, output, resume=resume) as folder:
        claim(folder, rows[0], resume=resume)
        opened, notes = opener(how), list[str]()
        if rewriting is not None:
            results = sampling.rewritten(rewriting.job, [row["prompt"] for row in rows], folder)
            texts = sampling.texts(results[0])
            rows = [{**row, "rewritten": texts[row["prompt"]]} for row in rows]
            notes.append(sampling.summary(results))
        missing = pending(folder, rows)
        render(how, missing, folder, opened)
        finish(folder, rows)
        notes += page(how, rewriting, rows, folder, opened)
        return collected(Samples(rows, folder, len(missing), notes), keep=output is not None)


def named(how: Rendering) -> Rendering:
    """The same, with the toy model where none is named, which is said on one loud line."""
    if how.model is not None:
        return how
    toy.announce(naming.prefix("model"))
    return replace(how, model=toy.NAME)


@contextmanager
def place(how: Rendering, output: Path | None, *, resume: bool) -> Iterator[Path]:
    """The folder of the run while nobody else holds it; one for the moment if the images go into memory."""
    if is_name(how.model):
        locate(str(how.model))
    elif resume:
        log.warning(
            "%s is not compared with the one that this run began with; images that are there stay",
            name_of(how.model),
        )
    if output is None:
        with TemporaryDirectory(prefix="t2ialign-") as folder:
            yield Path(folder)
        return
    check_free(output, resume=resume)
    with locks.hold_folder(output, naming.prefix("output")):
        yield output


def collected(samples: Samples, *, keep: bool) -> Samples:
    """The samples as they are, or if their folder is not to be kept, with their images in memory."""
    if keep:
        return samples
    images = {row["file"]: image for row, image in zip(samples.rows, samples, strict=True)}
    return replace(samples, folder=None, images=images)


def opener(how: Rendering) -> Opened:
    """Gives the model with its LoRAs, loaded when it is first asked for."""
    return cache(partial(_open, how))


def _open(how: Rendering) -> Any:
    policy = policy_of(
        how.model,
        precision=how.precision,
        attention=how.attention,
        options=how.options,
        sides=[side for side in (how.height, how.width) if side is not None],
    )
    for path, scale in map(parse_lora, how.loras):
        from t2ialign.models.lora_apply import apply_lora

        apply_lora(policy, path, weight=scale)
    return policy


def render(how: Rendering, rows: Sequence[Row], output: Path, opened: Opened) -> None:
    """Render the rows batch by batch: each image whole on disk first, then its row in the manifest."""
    if not rows:
        return
    from t2ialign.models.generate import generate
    from t2ialign.progress import Progress

    policy = opened()
    with Progress(total=len(rows), desc="sample", unit="image") as bar:
        for batch in _batches(rows, how.batch_size):
            images = generate(
                policy,
                [row["rewritten"] if "rewritten" in row else row["prompt"] for row in batch],
                [row["seed"] for row in batch],
                num_inference_steps=how.num_inference_steps,
                guidance_scale=how.guidance_scale,
                eta=how.eta,
                height=how.height,
                width=how.width,
                batch_size=how.batch_size,
            )
            for tensor, row in zip(images, batch, strict=True):
                image = to_pil(tensor)
                png_text.save(image, output / row["file"], png_text.image_text(row, image.size))
            jsonl.append(output / manifest.NAME, batch)
            bar.update(len(batch))


def page(
    how: Rendering, rewriting: Rewriting | None, rows: Sequence[Row], folder: Path, opened: Opened
) -> list[str]:
    """Write the page of rewrites, for which the prompts themselves are rendered -> a line that names it."""
    if rewriting is None or rewriting.html is None:
        return []
    originals, plans = folder / sampling.ORIGINALS, sampling.originals(rows)
    if plans:
        originals.mkdir(exist_ok=True)
        render(how, pending(originals, plans), originals, opened)
        jsonl.rewrite(originals / manifest.NAME, plans)
    sampling.write_page(rewriting.html, folder, rows, rewriting.job.name)
    return [f"prompts, rewrites and images side by side: {rewriting.html}"]


def to_pil(image: Any) -> Image.Image:
    """Tensor (3, H, W) in [0, 1] -> 8-bit image."""
    return Image.fromarray(image.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy())


def _batches(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
