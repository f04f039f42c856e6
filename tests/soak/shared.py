"""What people share, made once: weights, models, samples and tables, and the commands that read a copy."""

import json
import shutil
from pathlib import Path

from tests.soak.world import World

ASSETS = Path(__file__).parents[2] / "assets"
SCORE = "score {samples} --workers 0 -o o.jsonl --rewards"
SAMPLE = "sample x --model in --num-inference-steps 1 --output o"
SHORT = "max_steps=1 batch_size=2 accumulate=1 trackers=[] output=o"
COMMANDS = (
    ("reward", "reward.json", f"{SCORE} trained --option trained:weights=in"),
    ("reward", "reward.json", f"{SCORE} in"),
    ("reward", "reward.json", f"train backprop reward=in prompts={{prompts}} num_inference_steps=1 {SHORT}"),
    ("head", "head.json", "keypoints {samples} --backend head --weights in --output o"),
    ("toy", "model_index.json", SAMPLE),
    ("toy", "scheduler/scheduler_config.json", SAMPLE),
    ("toy", "unet/config.json", SAMPLE),
    ("toy", "vae/config.json", SAMPLE),
    ("toy", "text_encoder/config.json", SAMPLE),
    ("toy", "tokenizer/tokenizer_config.json", SAMPLE),
    ("toy-clip", "config.json", f"{SCORE} toy-clip --option toy-clip:weights=in"),
    ("images", "manifest.jsonl", "score in --workers 0 -o o.jsonl --rewards saturation"),
    ("images", "manifest.jsonl", "keypoints in --output o"),
    (
        "images",
        "manifest.jsonl",
        "sample --prompts {prompts} --model toy --num-inference-steps 1 --output in --resume latest",
    ),
    (
        "tables",
        "pairs.jsonl",
        "filter in/pairs.jsonl --rewards saturation grid clipped -o o.jsonl --unreadable skip",
    ),
    ("tables", "pairs.jsonl", f"train dpo data=in/pairs.jsonl model=toy {SHORT}"),
    ("tables", "pairs.jsonl", "rewrite --prompts in/pairs.jsonl -o o.jsonl"),
    ("tables", "points.jsonl", "train evaluator data=in/points.jsonl reward=toy-clip epochs=1 output=o"),
)
"""(folder, a JSON file in it, the command that reads it where its copy is called "in")."""


def make(world: World, place: Path) -> None:
    """The folders of `COMMANDS`."""
    for name in ("toy", "toy-clip"):
        shutil.copytree(ASSETS / name, place / name)
    tables = place / "tables"
    tables.mkdir()
    shutil.copy(world.pairs, tables)
    with (tables / "points.jsonl").open("w", encoding="utf-8") as file:
        for number, prompt in enumerate(world.prompts.read_text(encoding="utf-8").splitlines()):
            points = [{"kind": "counting", "description": f"{prompt} {i}", "match": float(i)} for i in (0, 1)]
            row = {"image": f"{world.samples}/{number:05d}.png", "prompt": prompt, "points": points}
            file.write(json.dumps(row) + "\n")
    for command in (
        "train reward data={pairs} reward=toy-clip output=reward max_steps=1 batch_size=2 trackers=[]",
        "train evaluator data=tables/points.jsonl reward=toy-clip output=head epochs=1",
        "sample --prompts {prompts} --model toy --num-inference-steps 1 --output images",
    ):
        world.must(place, *command.format(**vars(world)).split())


def copy(source: Path, target: Path) -> None:
    """The folder's files; those of weights, which nothing writes to, are links."""
    for file in (path for path in source.rglob("*") if path.is_file()):
        there = target / file.relative_to(source)
        there.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".safetensors":
            there.symlink_to(file)
        else:
            shutil.copy(file, there)
