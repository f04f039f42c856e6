"""Every command and every block of Python in README.md runs, from top to bottom, in one folder.

Models have random weights in the layouts of the released ones. Training commands run as printed, with
settings after them that make one step of a small image; lines that install or build are listed below.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from huggingface_hub import constants
from PIL import Image, ImageFilter
from transformers import CLIPModel

from t2ialign.cli.main import main
from tests.models import released
from tests.rewards import tiny_clip

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("T2IALIGN_DATA", ROOT / "../shared/data"))
PHOTOGRAPHS = DATA / "images/skimage/skimage/data"
HEAD = DATA / "weights/aesthetic-v2/sac+logos+ava1-l14-linearMSE.pth"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
HUB_MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"
QUICK = ["max_steps=1", "accumulate=1", "batch_size=2", "lora_rank=2", "lr_warmup=0", "trackers=[]"]
SHORTER = {
    "dpo": [*QUICK, "resolution=32", "validation_prompts=a cat", "validation_steps=2", "evaluate_every=1"],
    "backprop": [*QUICK, "num_inference_steps=2", "monitor_steps=2", "monitor_images=2"],
}
"""Appended to `t2ialign train METHOD`: one step on a small image."""
SMALL = ["--height", "32", "--width", "32", "--num-inference-steps", "2"]
"""Appended to `t2ialign sample --model`."""
NOT_RUN = ("python -m venv", "source ", "pip install", "make ")
"""The lines of the README's plain blocks: what installs, and what the Makefile's own tests run."""


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.fixture
def somebody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a checkpoint, pairs, images and prompts, and what a network would have fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    pipe = released.pipeline("sd1")
    pipe.unet.register_to_config(sample_size=16)
    (tmp_path / "models").mkdir()
    released.write(released.released(pipe), tmp_path / "models" / "my_model.safetensors")
    (tmp_path / "ComfyUI" / "models" / "loras").mkdir(parents=True)
    pairs_and_images(tmp_path)
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n", encoding="utf-8")
    (tmp_path / "heldout.txt").write_text("a horse\na boat\n", encoding="utf-8")

    weights = tmp_path / "weights"
    monkeypatch.setenv("T2IALIGN_WEIGHTS", str(weights))
    for name in ("clip-vit-large-patch14", "clip-vit-base-patch32"):
        config = tiny_clip.config()
        config.projection_dim = 768
        CLIPModel(config).save_pretrained(weights / "openai" / name)
    head = weights / "christophschuhmann" / "improved-aesthetic-predictor" / HEAD.name
    head.parent.mkdir(parents=True)
    shutil.copy(HEAD, head)

    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit, model = "0123456789abcdef0123456789abcdef01234567", "models--" + HUB_MODEL.replace("/", "--")
    pipe.save_pretrained(cache / model / "snapshots" / commit)
    (cache / model / "refs").mkdir()
    (cache / model / "refs" / "main").write_text(commit, encoding="utf-8")
    return tmp_path


def pairs_and_images(folder: Path) -> None:
    """Photographs, each preferred to a blurred copy of itself, with a caption beside each file."""
    for side in ("my_pairs/chosen", "my_pairs/rejected", "images"):
        (folder / side).mkdir(parents=True)
    for name, caption in (("chelsea", "a cat"), ("astronaut", "a woman"), ("coffee", "a cup of coffee")):
        image = Image.open(PHOTOGRAPHS / f"{name}.png").convert("RGB")
        for number in range(2):
            crop = image.crop((60 * number, 40 * number, 60 * number + 200, 40 * number + 200))
            for side, shown in (("chosen", crop), ("rejected", crop.filter(ImageFilter.GaussianBlur(4)))):
                shown.save(folder / "my_pairs" / side / f"{name}{number}.png")
                file = folder / "my_pairs" / side / f"{name}{number}.txt"
                file.write_text(f"{caption} {number}", encoding="utf-8")
    for name, caption in (("cat", "a cat"), ("dog", "a dog")):
        image.resize((96, 64)).save(folder / "images" / f"{name}.png")
        (folder / "images" / f"{name}.txt").write_text(caption, encoding="utf-8")


def run(line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] != "t2ialign":
        subprocess.run(["bash", "-c", line], check=True)
        return
    if words[1] == "train":
        words += SHORTER[words[2]]
    elif "--model" in words and words[1] == "sample":
        words += SMALL
    assert main(words[1:]) == 0, line


@pytest.mark.rest
@pytest.mark.skipif(not HEAD.is_file(), reason=f"no {HEAD}; set T2IALIGN_DATA")
def test_the_readme_runs_from_top_to_bottom(somebody):
    ran = 0
    for language, text in blocks():
        if language == "bash":
            for line in text.replace("\\\n", " ").splitlines():
                run(line)
                ran += 1
        elif language == "python":
            exec(text, {})
            ran += 1
    assert ran >= 18
    written = ["lighthouse.png", "ComfyUI/models/loras/mine_kohya.safetensors", "scores.csv", "scores.html"]
    written += ["monitor.html", "kept.jsonl", "merged.safetensors", "runs/soup", "runs/best", "runs/python"]
    assert not [name for name in written if not (somebody / name).exists()]


def test_no_command_hides_in_a_block_that_is_not_run():
    plain = [line for language, text in blocks() if language == "" for line in text.splitlines()]
    commands = [
        line for line in plain if re.match(r"(t2ialign|python|pip|make|source|accelerate|pytest)\b", line)
    ]
    assert commands and all(line.startswith(NOT_RUN) for line in commands)


def test_the_links_of_the_readme_and_of_the_docs_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page}: {target}"


def test_every_method_and_every_recipe_of_the_readme_exists():
    from t2ialign.cli import recipes
    from t2ialign.tasks import recipe_files
    from t2ialign.training.methods import methods

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("## Models and methods")[2].partition("## Other commands")[0]
    named = set(re.findall(r"`([a-z0-9]+_[a-z0-9_]+)`", table)) - set(methods())
    assert named <= {about.name for about in map(recipes.describe, recipe_files.files())}
    assert all(f"`{method}`" in table for method in methods())
