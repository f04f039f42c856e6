"""What made an image is in the file itself, as A1111 writes and reads it."""

import json
import re

from PIL import Image

from t2ialign.cli import main as cli
from t2ialign.io import manifest
from t2ialign.io.png_text import grid_text, image_text, save
from t2ialign.models.load import load_policy
from t2ialign.training.watch import validation

A1111 = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""How A1111's readers split the last line."""
ROW = {"prompt": "a cat", "seed": 7, "steps": 20, "guidance": 5.0, "model": "runs/my.safetensors"}


def parameters(file) -> tuple[str, dict[str, str]]:
    """(prompt, values) of a PNG file."""
    with Image.open(file) as image:
        image.load()
        prompt, _, line = image.info["parameters"].rpartition("\n")
    values = {name: json.loads(text) if text[:1] == '"' else text for name, text in A1111.findall(line)}
    return prompt, values


def test_an_image_tells_prompt_seed_steps_guidance_and_model(tmp_path):
    save(Image.new("RGB", (16, 8)), tmp_path / "a.png", image_text({**ROW, "eta": 0.0}, (16, 8)))
    assert parameters(tmp_path / "a.png") == (
        "a cat",
        {"Steps": "20", "Sampler": "DDIM", "CFG scale": "5", "Seed": "7", "Size": "16x8", "Model": "my"},
    )
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_what_was_rewritten_and_what_holds_commas_reads_back(tmp_path):
    row = {**ROW, "prompt": 'eine Tür, "offen": 3', "rewritten": "an open door\nin oil", "eta": 1.0}
    row |= {"adapter": "runs/a:0.5 + runs/b", "model": "org/name"}
    save(Image.new("RGB", (8, 8)), tmp_path / "a.png", image_text(row, (8, 8)))
    prompt, values = parameters(tmp_path / "a.png")
    assert prompt == "an open door\nin oil" and values["Original prompt"] == row["prompt"]
    assert (values["LoRA"], values["Eta DDIM"], values["Model"]) == (row["adapter"], "1", "name")


def test_a_grid_tells_every_cell(tmp_path):
    rows = [{**ROW, "prompt": prompt, "seed": seed} for prompt in ("a", "b") for seed in (3, 4)]
    save(Image.new("RGB", (16, 16)), tmp_path / "a.png", grid_text(rows, 2, (8, 8)))
    prompt, values = parameters(tmp_path / "a.png")
    assert prompt == "a\nb" and (values["Seed"], values["Grid"], values["Size"]) == ("3", "2x2", "8x8")
    cells = json.loads(Image.open(tmp_path / "a.png").info["t2ialign"])
    assert cells == [{"prompt": row["prompt"], "seed": row["seed"]} for row in rows]


def test_sample_writes_it_into_every_image_and_the_grid(tmp_path, tiny_sd):
    output = tmp_path / "out"
    argv = [
        "sample",
        "a red circle",
        "-n",
        "2",
        "--seed",
        "5",
        "--num-inference-steps",
        "2",
        "--guidance-scale",
        "1.5",
    ]
    assert cli.main([*argv, "--model", str(tiny_sd), "--output", str(output)]) == 0
    for row in manifest.read(output):
        prompt, values = parameters(row.path)
        assert (prompt, values["Seed"], values["Steps"]) == ("a red circle", str(row.seed), "2")
        assert (values["CFG scale"], values["Model"], values["Size"]) == ("1.5", "sd", "32x32")
    assert json.loads(Image.open(output / "grid.png").info["t2ialign"]) == [
        {"prompt": "a red circle", "seed": seed} for seed in (5, 6)
    ]


def test_validation_images_carry_prompt_and_seed(tmp_path, tiny_sd):
    from tests.training.toy import Config

    cfg = Config(model=str(tiny_sd), num_validation_images=2, validation_steps=1, validation_guidance_scale=3)
    file = tmp_path / "validation" / "step-000000.png"
    validation.render(cfg, load_policy(str(tiny_sd)), ["a", "b"], file)
    prompt, values = parameters(file)
    assert (prompt, values["Steps"], values["CFG scale"], values["Seed"]) == ("a\nb", "1", "3", "0")
    assert json.loads(Image.open(file).info["t2ialign"]) == [
        {"prompt": prompt, "seed": seed} for prompt in "ab" for seed in (0, 1)
    ]
