"""The first hour of somebody with one .safetensors file and a folder of photographs, from files to images.

The checkpoint has random weights in the key layout of the released files; the photographs are scikit-image's.
"""

import os
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image, ImageFilter
from safetensors import safe_open
from safetensors.torch import load_file

from t2ialign.cli.main import main
from t2ialign.models.load import load_policy
from tests.loras import UNET_TARGETS, targeted
from tests.models import released
from tests.models.test_lora_names import accepted, names_in

PHOTOGRAPHS = Path(os.environ.get("T2IALIGN_DATA", "../shared/data")) / "images/skimage/skimage/data"
SIZE = 32

pytestmark = [
    pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"no images in {PHOTOGRAPHS}; set T2IALIGN_DATA"),
    pytest.mark.rest,
]


def folder_of_pairs(folder: Path) -> Path:
    """Crops of photographs, each preferred to a blurred copy of itself, with a caption beside each file."""
    for side in ("chosen", "rejected"):
        (folder / side).mkdir(parents=True)
    for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"):
        photograph = Image.open(PHOTOGRAPHS / name).convert("RGB")
        for i in range(4):
            crop = photograph.crop((40 * i, 30 * i, 40 * i + 200, 30 * i + 160))
            file = f"{Path(name).stem} {i}.jpg"
            crop.save(folder / "chosen" / file)
            crop.filter(ImageFilter.GaussianBlur(4)).save(folder / "rejected" / file)
            (folder / "chosen" / file).with_suffix(".txt").write_text(f"a photo, {Path(name).stem}\n")
    return folder


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_from_one_file_and_photographs_to_images_in_every_program(family, tmp_path, capsys):
    checkpoint = released.write(
        released.released(released.pipeline(family)), tmp_path / "my model.safetensors"
    )
    data, run = folder_of_pairs(tmp_path / "my pairs"), tmp_path / "my run"

    settings = [f"model={checkpoint}", f"data={data}", f"output={run}", f"resolution={SIZE}", "max_steps=3"]
    numbers = ["batch_size=4", "accumulate=1", "lora_rank=4", "lora_alpha=8", "lr=1e-2", "holdout=0.25"]
    assert main(["train", "dpo", *settings, *numbers, "trackers=[]"]) == 0
    written, kohya = run / "pytorch_lora_weights.safetensors", run / "my run_kohya.safetensors"
    assert written.is_file() and kohya.is_file()

    # What is trained is in both files, under names that ComfyUI's rule takes, all of them.
    policy = load_policy(checkpoint)
    layers = names_in(kohya)
    assert layers <= accepted(policy.unet)
    assert len(layers) == len(targeted(policy.unet, UNET_TARGETS)) > 0
    with safe_open(kohya, framework="pt") as stream:
        header = stream.metadata()
    assert float(header["ss_network_alpha"]) == int(header["ss_network_dim"]) == 4

    # Exported again from either file, it is the same.
    for source in (written, kohya):
        out = tmp_path / f"{source.stem}.safetensors"
        assert main(["export", str(source), "--format", "kohya", "--model", checkpoint, "-o", str(out)]) == 0
        again, first = load_file(out), load_file(kohya)
        assert again.keys() == first.keys()
        for name, tensor in first.items():
            torch.testing.assert_close(again[name], tensor, rtol=1e-6, atol=1e-8)
    merged = tmp_path / "merged.safetensors"
    assert main(["export", str(run), "--format", "merged", "--model", checkpoint, "-o", str(merged)]) == 0
    assert f"{len(layers)} of {len(layers)} layers matched" in capsys.readouterr().err

    # Our sampler with either file, diffusers with its own, and the merged checkpoint give the same images.
    images = {
        "base": sampled(checkpoint, tmp_path / "base"),
        "diffusers file": sampled(checkpoint, tmp_path / "a", "--lora", str(run)),
        "kohya file": sampled(checkpoint, tmp_path / "b", "--lora", str(kohya)),
        "merged file": sampled(str(merged), tmp_path / "c"),
        "diffusers": by_diffusers(policy.pipe, written),
    }
    for name in ("kohya file", "merged file", "diffusers"):
        assert (images[name] - images["diffusers file"]).abs().max() <= 1, f"{name}: beyond one level"
    assert (images["base"] - images["diffusers file"]).abs().max() >= 3, "the LoRA changes nothing"


def sampled(model: str, output: Path, *lora: str) -> torch.Tensor:
    """Levels, 0 to 255, of one image by `t2ialign sample`."""
    size = ["--height", str(SIZE), "--width", str(SIZE), "--num-inference-steps", "3", "--seed", "7"]
    assert main(["sample", "a photo, coffee", "--model", model, *lora, *size, "--output", str(output)]) == 0
    return levels(Image.open(output / "00000.png"))


def by_diffusers(pipe: StableDiffusionPipeline | StableDiffusionXLPipeline, file: Path) -> torch.Tensor:
    """The same image by a pipeline of diffusers that loads the file itself."""
    pipe.load_lora_weights(str(file.parent), weight_name=file.name)
    pipe.set_progress_bar_config(disable=True)
    generator, size = torch.Generator().manual_seed(7), {"height": SIZE, "width": SIZE}
    made = pipe("a photo, coffee", num_inference_steps=3, guidance_scale=5.0, generator=generator, **size)
    return levels(made.images[0])


def levels(image: Image.Image) -> torch.Tensor:
    """(H, W, 3), 0 to 255."""
    return (
        torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
        .view(SIZE, SIZE, 3)
        .int()
    )
