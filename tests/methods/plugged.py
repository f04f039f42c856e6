"""Every family of rewards in every trainer that takes one: a real step, or the error that says why not.

`python -m tests.methods.plugged` writes docs/rewards_in_trainers.md from the cases that the tests run.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from t2ialign.methods.backprop import trainer as backprop
from t2ialign.methods.dense import trainer as dense
from t2ialign.methods.grpo import trainer as grpo
from t2ialign.methods.lpo import trainer as lpo
from t2ialign.methods.reward import trainer as reward
from t2ialign.methods.rewrite_grpo import trainer as rewrite_grpo
from tests.conftest import build_sd
from tests.rewards import released_scorers as released
from tests.training.helpers import numbers
from tests.training.rewriters import new_rewriter

DOC = Path(__file__).parents[2] / "docs" / "rewards_in_trainers.md"


INTRO = """# Rewards in trainers

Which reward plugs into which trainer, written by `python -m tests.methods.plugged` from the cases that
`tests/methods/test_rewards_in_trainers.py` runs. "yes" is one real step there: the trainer, the classes of
the scorer, its loading code and its image size are real; its networks are narrow and have random weights.
A number is the error that the trainer raises, below the table. `reward` is `t2ialign train reward`, which
trains the scorer itself.

"""
HEAD = "| family | reward |"

SETTINGS = """## Settings
Those of the table, row by row; the files stand for yours.
```"""


@dataclass(frozen=True)
class Case:
    """A reward as a user names it; an option in braces is a file of the folder of weights."""

    family: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How the table names it."""
        return f"TextNorm over `{self.options['base']}`" if self.family == "TextNorm" else f"`{self.name}`"

    @property
    def settings(self) -> str:
        """The words of the command line."""
        options = ", ".join(f"{key}: {str(value).strip('{}')}" for key, value in self.options.items())
        return f"reward={self.name}" + (f" reward_options='{{{options}}}'" if options else "")


def _textnorm(base: str, **options: Any) -> Case:
    settings = {"base": base, "contrast": CONTRASTS, "scale": 2.0, "form": "log", **options}
    return Case("TextNorm", "rewards.scorers.textnorm", settings)


HEAD_FILE, CONTRASTS, RUBRIC, LATENT = (
    f"{{{name}}}" for name in (released.HEAD, released.CONTRASTS, released.RUBRIC_FILE, released.LATENT)
)
VLM = {"weights": released.VLM}
CASES = (
    Case("CLIP and aesthetic", "clipscore"),
    Case("CLIP and aesthetic", "aesthetic", {"weights": HEAD_FILE}),
    *(Case("human preference", name) for name in ("pickscore", "hpsv2.1", "mps", "imagereward")),
    Case("human preference", "hpsv3", {"rubric": RUBRIC}),
    Case("VQA", "vqascore", VLM),
    Case("VQA", "vqascore-grad", VLM),
    *(_textnorm(base) for base in ("clipscore", "pickscore", "hpsv2.1", "mps", "imagereward")),
    _textnorm("hpsv3", rubric=RUBRIC),
    _textnorm("vqascore", **VLM),
    _textnorm("vqascore-grad", **VLM),
    _textnorm("evaluator", **VLM),
    _textnorm("aesthetic", weights=HEAD_FILE),
    _textnorm("latent", path=LATENT),
    Case("latent", "latent", {"path": LATENT}),
    Case("AlignEvaluator", "evaluator", VLM),
)
Outcomes = dict[tuple[str, str], str]
"""(label of the reward, trainer) -> "" where a step ran, else the error."""


@dataclass(frozen=True)
class World:
    """Where the files of random weights, image models and data are."""

    root: Path

    @classmethod
    def build(cls, root: Path) -> "World":
        """Write everything that a step needs."""
        world = cls(root)
        build_sd(world.model)
        shutil.copytree(world.model, world.wide)
        file = world.wide / "unet" / "config.json"  # the weights fit latents of any size
        file.write_text(json.dumps({**json.loads(file.read_text()), "sample_size": 64}))
        released.write(world.weights, world.wide)
        new_rewriter(world.rewriter)
        _write_lines(world.prompts, [{"prompt": prompt} for prompt in released.PROMPTS])
        pairs = [{"prompt": released.PROMPTS[n % 2], **_pair(root, n)} for n in range(4)]
        _write_lines(world.pairs, pairs)
        return world

    weights = property(lambda self: self.root / "weights")
    model = property(lambda self: self.root / "sd")
    """Of 32 x 32 pixels."""
    wide = property(lambda self: self.root / "sd-wide")
    """Of latents of 64 x 64 numbers, as Stable Diffusion's."""
    rewriter = property(lambda self: self.root / "rewriter")
    prompts = property(lambda self: self.root / "prompts.jsonl")
    pairs = property(lambda self: self.root / "pairs.jsonl")


def _write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _pair(root: Path, number: int) -> dict[str, str]:
    files = {}
    for seed, side in enumerate(("chosen", "rejected")):
        pixels = np.random.default_rng([seed, number]).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        files[side] = str(root / f"{side}-{number}.png")
        Image.fromarray(pixels).save(files[side])
    return files


Settings = dict[str, Any]
SMALL: Settings = {"max_steps": 1, "lora_rank": 2, "trackers": (), "lr": 1e-3}
SAMPLING: Settings = {
    **SMALL,
    "prompts": released.PROMPTS[0],
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "batch_size": 1,
}


def _dense(world: World, settings: Settings) -> Any:
    sizes = {"collect_prompts": 1, "rollouts": 2, "keep": 2, "rollout_batch": 2}
    values = {**SAMPLING, "model": str(world.model), **sizes, **settings}
    return dense.Trainer(dense.Config.model_validate(values))


def _backprop(world: World, settings: Settings) -> Any:
    values = {**SAMPLING, "model": str(world.model), **settings}
    return backprop.Trainer(backprop.Config.model_validate(values))


def _lpo(world: World, settings: Settings) -> Any:
    model = world.wide if settings["reward"] == "latent" else world.model
    rounds = {"collect_prompts": 1, "candidates": 2, "rollout_batch": 1}
    every_pair = {"t_max": 999, "threshold_low": 0.0, "threshold_high": 0.0}
    values = {**SAMPLING, "model": str(model), **rounds, **every_pair, **settings}
    return lpo.Trainer(lpo.Config.model_validate(values))


def _grpo(world: World, settings: Settings) -> Any:
    round_ = {"groups": 1, "group_size": 2, "updates": 1, "rollout_batch": 2, "train_timesteps": 1}
    values = {**SAMPLING, "model": str(world.model), "preset": "nft", **round_, **settings}
    return grpo.Trainer(grpo.Config.model_validate(values))


def _reward(world: World, settings: Settings) -> Any:
    data = {"data": str(world.pairs), "holdout": 0.5, "resolution": 64, "batch_size": 1, "accumulate": 1}
    return reward.Trainer(reward.Config.model_validate({**SMALL, **data, **settings}))


def _rewrite_grpo(world: World, settings: Settings) -> Any:
    models = {"model": str(world.rewriter), "prompts": str(world.prompts), "generator": str(world.model)}
    sizes = {
        "batch_size": 2,
        "group": 2,
        "tokens": 4,
        "num_inference_steps": 2,
        "guidance_scale": 1.0,
        "preset": "toy",
    }
    return rewrite_grpo.Trainer(rewrite_grpo.Config.model_validate({**SMALL, **models, **sizes, **settings}))


TRAINERS: dict[str, Callable[[World, Settings], Any]] = {
    "dense": _dense,
    "grpo": _grpo,
    "backprop": _backprop,
    "lpo": _lpo,
    "reward": _reward,
    "rewrite_grpo": _rewrite_grpo,
}


def outcome(world: World, case: Case, trainer: str, output: Path) -> str:
    """ "" where one step ran and moved weights, else the one line of the error."""
    options = {
        key: str(world.weights / value.strip("{}")) if str(value).startswith("{") else value
        for key, value in case.options.items()
    }
    settings = {"reward": case.name, "reward_options": options, "output": output}
    with pytest.MonkeyPatch.context() as patch:
        released.narrow(patch, world.weights)
        try:
            TRAINERS[trainer](world, settings).fit()
        except ValueError as error:
            return str(error)
    rows = [row for row in numbers(output) if row["step"] == 1 and "grad_norm" in row]
    assert rows and all(math.isfinite(value) for row in rows for value in row.values()), rows
    if trainer != "rewrite_grpo":  # whose untrained outputs are all alike: no advantage, and no gradient
        assert rows[0]["grad_norm"] > 0, (case.label, trainer)
    return ""


def render(outcomes: Outcomes) -> str:
    """The page."""
    errors = list(dict.fromkeys(error for error in outcomes.values() if error))
    lines = [f"{HEAD} {' | '.join(f'`{name}`' for name in TRAINERS)} |", "|---|---|" + "---|" * len(TRAINERS)]
    for case in CASES:
        here = [outcomes[case.label, trainer] for trainer in TRAINERS]
        words = [f"{errors.index(error) + 1}" if error else "yes" for error in here]
        lines.append(f"| {case.family} | {case.label} | {' | '.join(words)} |")
    notes = [f"{number}. {error}" for number, error in enumerate(errors, 1)]
    return INTRO + "\n".join([*lines, "", *notes, "", SETTINGS, *(case.settings for case in CASES), "```\n"])


def parse(page: str) -> Outcomes:
    """What a page says, in reverse of `render`."""
    lines = page.splitlines()
    notes = dict(line.split(". ", 1) for line in lines if line.split(". ")[0].isdigit())
    outcomes = {}
    for line in lines:
        if line.startswith("| ") and not line.startswith(HEAD):
            _, label, *words = line.strip("| ").split(" | ")
            for trainer, word in zip(TRAINERS, words, strict=True):
                outcomes[label, trainer] = "" if word == "yes" else notes[word]
    return outcomes


def main() -> None:
    """Run every case and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        world = World.build(Path(folder))
        outcomes = {}
        for number, case in enumerate(CASES):
            for trainer in TRAINERS:
                output = world.root / "runs" / f"{number}-{trainer}"
                outcomes[case.label, trainer] = outcome(world, case, trainer, output)
    DOC.write_text(render(outcomes), encoding="utf-8")


if __name__ == "__main__":
    main()
