"""One small command of each verb that can go on after a kill, and what it has to leave behind."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tests.soak.judge import Rows, joined, json_lines
from tests.soak.world import World

CLOCK = ("images_per_s", "max_memory_gb")
TRAIN = (
    "train dpo data={pairs} model=toy output=out max_steps=4 checkpoint_every=1 batch_size=2 accumulate=1 "
    "lora_rank=2 lr_warmup=0 lr=1e-3 evaluate_every=2 trackers=[]"
)


@dataclass(frozen=True)
class Job:
    """command: of fields of a world; read: what a finished run left in a folder; resume: what goes on."""

    command: str
    output: str
    read: Callable[[Path], Rows]
    resume: str = "--resume latest"

    def words(self, world: World) -> list[str]:
        return self.command.format(**vars(world)).split()


def text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""


def table(file: Path, *keys: str) -> tuple[str, Rows]:
    return file.name, json_lines(text(file), *keys)


def figures(file: Path) -> tuple[str, Rows]:
    return file.name, [("all", json.loads(text(file) or "null"))]


def journal(file: Path) -> tuple[str, Rows]:
    """How often each row is in a journal; its place and numbers are those of the table."""
    return file.name, [(key, None) for key, _ in json_lines(text(file), "id", "prompt")]


def samples(folder: Path) -> Rows:
    images = [
        (f"pixels of {path.name}", [value / 255 for value in Image.open(path).tobytes()])
        for path in folder.glob("*.png")
    ]
    return [*joined([table(folder / "manifest.jsonl", "file")]), *images]


def training(folder: Path) -> Rows:
    from safetensors.torch import load_file

    name, rows = table(folder / "metrics.jsonl", "step")
    plain = [(key, {k: v for k, v in row.items() if k not in CLOCK}) for key, row in rows]
    file = folder / "pytorch_lora_weights.safetensors"
    weights: list[tuple[str, Any]] = [
        (key, [float(value.double().sum()), float(value.double().abs().sum())])
        for key, value in (load_file(file) if file.exists() else {}).items()
    ]
    there = sorted(path.name for path in folder.glob("checkpoints/checkpoint-*"))
    return joined([(name, plain), ("weights", weights), ("folder", [(name, None) for name in there])])


JOBS = {
    "score": Job(
        "score {samples} --rewards saturation,toy-clip -o out.jsonl --workers 1 --batch-size 2",
        "out.jsonl",
        lambda at: joined([table(at / "out.jsonl", "file"), journal(at / "out.jsonl.journal.jsonl")]),
    ),
    "filter": Job(
        "filter {pairs} --rewards saturation grid toy-clip -o out.jsonl --batch-size 2 --floor -9 -9 -9",
        "out.jsonl",
        lambda at: joined(
            [
                table(at / "out.jsonl", "jpg_0", "jpg_1"),
                figures(at / "out.json"),
                journal(at / "out.jsonl.scores.jsonl"),
            ]
        ),
    ),
    "keypoints": Job(
        "keypoints {samples} --output out --batch-size 2",
        "out",
        lambda at: joined(
            [
                table(at / "out" / "keypoints.jsonl", "file", "description"),
                figures(at / "out" / "keypoints.json"),
                journal(at / "out" / "journal.jsonl"),
            ]
        ),
    ),
    "rewrite": Job(
        "rewrite --prompts {many} -o out.jsonl",
        "out.jsonl",
        lambda at: joined(
            [
                table(at / "out.jsonl", "prompt"),
                figures(at / "out.json"),
                journal(at / "out.jsonl.journal.jsonl"),
            ]
        ),
    ),
    "sample": Job(
        "sample --prompts {prompts} --model toy --output out --num-inference-steps 2 --batch-size 2",
        "out",
        lambda at: samples(at / "out"),
    ),
    "train": Job(TRAIN, "out", lambda at: training(at / "out"), "resume=latest"),
}


def whole(job: Job, world: World, folder: Path) -> Rows:
    """What an undisturbed run leaves behind."""
    world.must(folder, *job.words(world))
    rows = job.read(folder)
    assert rows, f"{job.output} of an undisturbed run is empty"
    return rows
