"""Hostile settings: recipes, words of the command line, and JSON beside weights and data.

Whatever they hold, a command ends in success or in one line, soon, and no code of theirs runs.
"""

import json
import re
from pathlib import Path
from random import Random

import yaml

from tests.soak import shared
from tests.soak.hostile import RAW, damaged, mutated, texts, values
from tests.soak.judge import faults
from tests.soak.runs import Run
from tests.soak.world import World

RECIPES = Path(__file__).parents[2] / "scripts" / "configs"
LONG_ENOUGH = 8.0
"""Seconds after which a command that was accepted, such as a training of 2^40 steps, is stopped."""
FRESH = 0.03
"""The share of commands that are a new interpreter."""
STEPS = "max_steps=1 batch_size=2 trackers=[] output=out"
KEYS = ("lr", "data", "reward", "prompts", "lora_targets", "max_steps", "seed", "trackers", "options")
WORDS = (
    f"train dpo data={{pairs}} {STEPS} KEY=",
    f"train backprop prompts={{prompts}} reward=toy-oracle {STEPS} KEY=",
    f"train reward data={{pairs}} reward=toy-clip {STEPS} KEY=",
    f"train lrm data={{pairs}} {STEPS} KEY=",
    "score {samples} --workers 0 -o o.jsonl --rewards=",
    "score {samples} --workers 0 -o o.jsonl --rewards saturation --option saturation:scale=",
    "score {samples} --workers 0 -o o.jsonl --rewards trained --option trained:weights=",
    "rewrite x -o o.jsonl --option tokens=",
    "sample x --num-inference-steps 1 --output o --lora=",
    "sample --num-inference-steps 1 --output o --prompts=",
    "keypoints {samples} --output o --option x=",
)
"""Commands whose last word has a hostile end."""


class Configs:
    """Tries of one hostile file or word each."""

    def __init__(self, world: World) -> None:
        self.world, self.values, self.texts = world, values(world.canary), texts(world.canary)
        self.recipes = [
            (file, match[1])
            for file in sorted(RECIPES.glob("*.yaml"))
            if (match := re.search(r"t2ialign train (\w+)", file.read_text(encoding="utf-8")))
        ]
        shared.make(world, world.root / "shared")

    def attempt(self, rng: Random, folder: Path) -> tuple[int, list[str]]:
        """One command -> (1, faults)."""
        words = rng.choice((self._recipe, self._words, self._json))(rng, folder)
        (folder / "command.json").write_text(json.dumps(words), encoding="utf-8")
        run = Run(words, folder, fresh=rng.random() < FRESH).wait(kill_after=LONG_ENOUGH)
        accepted = (0, 3, *((-9,) if run.ended_by_us == "kill" else ()))
        return 1, [f"{' '.join(words)[:150]!r}: {fault}" for fault in faults(run, *accepted)]

    def _recipe(self, rng: Random, folder: Path) -> list[str]:
        file, method = rng.choice(self.recipes)
        recipe = mutated(rng, yaml.safe_load(file.read_text(encoding="utf-8")), self.values)
        text = yaml.safe_dump(recipe).replace(RAW, rng.choice(self.texts))
        data = text.encode("utf-8", "surrogatepass")
        (folder / "recipe.yaml").write_bytes(damaged(rng, data) if rng.random() < 0.3 else data)
        return ["train", method, "-c", "recipe.yaml"]

    def _words(self, rng: Random, folder: Path) -> list[str]:
        words = rng.choice(WORDS).format(**vars(self.world)).replace("KEY", rng.choice(KEYS)).split()
        value = rng.choice((*self.values, *self.texts))
        text = value if isinstance(value, str) else json.dumps(value)
        return [*words[:-1], words[-1] + text.replace("\0", "").encode("utf-8", "replace").decode()]

    def _json(self, rng: Random, folder: Path) -> list[str]:
        """A copy of a folder of others, one of whose JSON files is mutated."""
        name, file, command = rng.choice(shared.COMMANDS)
        shared.copy(self.world.root / "shared" / name, folder / "in")
        target = folder / "in" / file
        lines = target.read_text(encoding="utf-8").splitlines()
        lines = lines if target.suffix == ".jsonl" else ["\n".join(lines)]
        number = rng.randrange(len(lines))
        text = json.dumps(mutated(rng, json.loads(lines[number]), self.values))
        raw = rng.choice(("[" * 5000 + "]" * 5000, "9" * 5000, "1e999", "'", "{}}", "NaN"))
        lines[number] = text.replace(f'"{RAW}"', raw)
        data = ("\n".join(lines) + "\n").encode()
        target.write_bytes(damaged(rng, data) if rng.random() < 0.2 else data)
        return command.format(**vars(self.world)).split()
