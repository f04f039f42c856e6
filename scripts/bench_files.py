"""The measures of bench_score.py that read files: end to end, and how many forwards the engine takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import torch

from rewards.scorers.clip import ClipScore
from scripts.bench_parts import CLIPS, SIDE, Bench, Row, jpegs, number, ratio
from t2ialign.scoring import output
from t2ialign.scoring.decode import default_workers
from t2ialign.scoring.engine import Engine
from t2ialign.scoring.journal import Journal, path_of
from t2ialign.scoring.prompts import Prompts
from t2ialign.scoring.rows import Columns
from t2ialign.scoring.sources import open_source

B, L, H = CLIPS
FILES = {"cpu": {B: (256, 32), L: (16, 8), H: (16, 4)}, "cuda": {B: (4096, 64), L: (2048, 64), H: (1024, 64)}}
"""Images on disk and in a batch of the measure `end`."""


def end(bench: Bench) -> Iterator[Row]:
    """The time from files to a table, for each CLIP."""
    for clip in bench.clips:
        files, batch = FILES[bench.device.type][clip]
        yield end_of(bench, clip, bench.num_images or files, 4 if bench.small else batch)


def end_of(bench: Bench, clip: str, files: int, batch: int) -> Row:
    """All that `t2ialign score` does but loading the reward, against forwards of pixels on the device."""
    reward, folder, path = bench.score(clip), bench.folder / f"jpeg-{clip}", bench.folder / "scores.parquet"
    prompts, size = jpegs(folder, files), reward.geometry.size
    pixels = torch.randn(batch, 3, size, size, device=bench.device)
    engine = engine_of(bench, reward, batch)

    def scored() -> None:
        reward.tower.forget()
        path_of(path).unlink(missing_ok=True)
        source = open_source(str(folder), Prompts(), Columns())
        with closing(Journal(path_of(path), {}, resume=False)) as journal:
            for rows in engine.score(journal.todo(source.items())):
                journal.add(rows)
            journal.push()
            scores = output.table(journal.rows(), list(engine.rewards))
        output.write(scores, path)
        assert len(scores) == files and not output.broken(scores), "an image has no score"

    def bare() -> None:
        reward.tower.forget()
        reward.tower.texts(prompts)
        for _ in range(0, files, batch):
            reward.tower.encode_image(pixels)

    times = bench.time({"bare": bare, "end to end": scored})
    on = f"{clip}, {files} JPEGs of {SIDE}x{SIDE}, batches of {batch}, {engine.workers} workers"
    target = ">= 0.95" if bench.device.type == "cuda" else ">= 0.9"
    return ratio("files to table: share of the bare forward's speed", on, times, "bare / end to end", target)


def engine_of(bench: Bench, reward: ClipScore, batch: int) -> Engine:
    """The engine as `t2ialign score` makes it."""
    workers = default_workers() if bench.workers is None else bench.workers
    precision = "bf16" if bench.bf16 else "fp32"
    rewards = {"clipscore": reward}
    return Engine(rewards, device=bench.device, batch_size=batch, workers=workers, precision=precision)


def forwards(bench: Bench) -> Iterator[Row]:
    """The number of forwards of the engine, for 64 images of 4 prompts."""
    if B not in bench.clips:
        return
    reward, folder, batch = bench.score(B), bench.folder / "jpeg-forwards", 16
    jpegs(folder, 64, share=16)
    source = open_source(str(folder), Prompts(), Columns())
    reward.tower.forget()
    passed: list[str] = []
    model = bench.tower(B).model
    hooks = [
        part.register_forward_pre_hook(lambda *_, kind=kind: passed.append(kind))
        for kind, part in (("image", model.visual), ("text", model.transformer))
    ]
    scored = sum(len(rows) for rows in engine_of(bench, reward, batch).score(source.items()))
    for hook in hooks:
        hook.remove()
    assert scored == 64, f"{scored} of 64 images were scored"
    on = f"{B}, 64 JPEGs of 4 prompts, batches of {batch}"
    yield number("image forwards", on, passed.count("image"), f"<= {64 // batch}")
    yield number("text forwards", on, passed.count("text"), "<= 1")
