"""Every recipe of an image model takes a step on tiny pipelines: its settings fit together."""

import json
import math
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rewards.latent import saved, untrained
from t2ialign.cli import recipes
from t2ialign.config import load
from t2ialign.models.lora_files import FILE
from t2ialign.tasks import recipe_files
from t2ialign.training.log import METRICS, read_rows
from t2ialign.training.methods import load_method
from tests.models.flows.tiny_flows import FLOWS

IMAGE_METHODS = ("backprop", "dense", "dpo", "grpo", "kto", "lpo", "lrm", "sft", "tpo")
RECIPES = [about for about in map(recipes.describe, recipe_files.files()) if about.method in IMAGE_METHODS]
SERVE_SD2 = (
    *("dpo_sd15_small", "dense_sd15", "backprop_sd15", "lrm_sd15", "lpo_sd15"),
    *("sft_sd15", "kto_sd15", "tpo_sd15"),
)
PROMPTS = "prompts=a red circle"
QUICK = ["max_steps=1", "accumulate=1", "batch_size=2", "lr_warmup=0", "checkpoint_every=1", "trackers=[]"]
SAMPLED = ["num_inference_steps=4", "lora_rank=2", PROMPTS]
MONITORED = ["monitor_steps=2", "monitor_images=2", "monitor_rewards=tests.training.brightness"]
SMALL = ["lora_rank=2", "limit=8", "resolution=32"]
CHANGES = {
    "backprop": [*SAMPLED, "reward=tests.training.redness"],
    "dense": [*SAMPLED, "reward=tests.training.brightness", "collect_prompts=2", "rollouts=4", "keep=3"],
    # The scores of an untrained judge hardly differ: with the recipe's thresholds no pair is clear enough.
    "lpo": [*SAMPLED, "threshold_low=0", "threshold_high=0", "collect_prompts=2", "rollout_batch=2"],
    "grpo": [
        *("lora_rank=2", PROMPTS, "reward=tests.training.redness", "resolution=32", "rollout_batch=4"),
        *("num_inference_steps=4", "window=0", "groups=1", "group_size=2", "updates=1", "train_timesteps=1"),
    ],
    "dpo": ["lora_rank=2", "streaming=false", "limit=8", "resolution=32"],
    "kto": SMALL,
    "sft": SMALL,
    "tpo": SMALL,
    "lrm": ["text_projection=none", "limit=8", "resolution=32"],
}
"""What a step in a second asks for: the rest is the recipe's own, its precision and checkpointing too."""


KINDS = {"sdxl": "sdxl", "sd35": "sd3", "flux": "flux", "z_image": "z-image"}
"""Part of a recipe's name -> the tiny model that it trains; the others train Stable Diffusion's."""
CASES = [
    (recipe, next((kind for part, kind in KINDS.items() if part in recipe.name), "sd")) for recipe in RECIPES
]
CASES += [(recipe, "sd_v") for recipe in RECIPES if recipe.name in SERVE_SD2]
"""A recipe and the tiny model that it trains; Stable Diffusion 2.1, which predicts v, takes SD1.5's."""


@pytest.fixture(scope="module")
def models(
    tiny_sd: Path, tiny_sd_v: Path, tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    flows = {family: tmp_path_factory.mktemp(family) for family in FLOWS}
    for family, folder in flows.items():
        FLOWS[family]().save_pretrained(folder)
    return {"sd": tiny_sd, "sd_v": tiny_sd_v, "sdxl": tiny_sdxl, **flows}


@pytest.fixture(scope="module")
def judges(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """An untrained latent reward of each model."""
    judged = [model for kind, model in models.items() if kind not in FLOWS]
    folders = {model: tmp_path_factory.mktemp("judge") for model in judged}
    for model, folder in folders.items():
        saved.save(untrained.from_pipeline(model), folder)
    return folders


@pytest.mark.parametrize(("recipe", "kind"), CASES, ids=[f"{recipe.name}-{kind}" for recipe, kind in CASES])
def test_a_recipe_takes_a_step(recipe, kind, models, judges, pair_folder, tmp_path):
    module, file = load_method(recipe.method), recipe_files.find(recipe.name)
    model = models[kind]
    changes = [*QUICK, *CHANGES[recipe.method], f"model={model}", f"output={tmp_path / 'run'}"]
    if recipe.method in ("dpo", "lrm", "kto", "sft", "tpo"):
        changes.append(f"data={pair_folder}")
    if recipe.method == "tpo":
        others = {f"image {i}": [f"picture {i}"] for i in range(20)}
        (tmp_path / "others.json").write_text(json.dumps(others))
        changes.append(f"mismatched={tmp_path / 'others.json'}")
    if recipe.method == "lpo":
        changes.append(f"reward_options.path={judges[model]}")
    plain = load(module.Config, file)
    if getattr(plain, "validation_prompts", ()):
        shown = "[]" if kind in ("flux", "z-image") else "a cat"  # of 512 and 1,024 pixels, which take long
        changes += ["validation_steps=2", f"validation_prompts={shown}", "num_validation_images=1"]
    if getattr(plain, "monitor_prompts", None):
        (tmp_path / "monitor.txt").write_text("a dog\na cat\n")
        changes += [*MONITORED, f"monitor_prompts={tmp_path / 'monitor.txt'}"]
    if getattr(plain, "heldout_prompts", None):
        changes.append("heldout_prompts=a dog")
    module.Trainer(load(module.Config, file, changes)).fit()
    row = read_rows(tmp_path / "run" / METRICS)[-1]
    assert row["step"] == 1 and math.isfinite(row["loss"]) and row["lr"] == pytest.approx(plain.lr)
    if recipe.method == "lrm":
        assert (tmp_path / "run" / saved.WEIGHTS).is_file()
    else:
        weights = load_file(tmp_path / "run" / FILE)
        assert any(
            value.abs().max() > 0 for name, value in weights.items() if "lora_B" in name or "up." in name
        )
