"""The main job on images that nobody here made: a folder with captions in, a LoRA that loads out.

Emoji (Apache-2.0) are preferred to 16-pixel icons (CC-BY-2.5); sizes and modes are mixed as users have them.
"""

import io
import json
import os
import tarfile
import unicodedata
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from rewards.assets import folder
from t2ialign.cli.main import main

IMAGES = Path(os.environ.get("T2IALIGN_DATA", "../shared/data")) / "images"
COUNT = 160


def make_images(archive: str) -> list[tuple[str, Image.Image]]:
    """(file stem, image) of every PNG in a tar archive, in order of name."""
    with tarfile.open(IMAGES / archive) as tar:
        files = sorted((member for member in tar if member.name.endswith(".png")), key=lambda m: m.name)
        found = []
        for member in files:
            stream = tar.extractfile(member)
            assert stream is not None
            found.append((Path(member.name).stem, Image.open(io.BytesIO(stream.read())).copy()))
    return found


def emoji() -> list[tuple[str, Image.Image]]:
    """(Unicode name in lower case, image) of every emoji of a single code point."""
    named = []
    for stem, image in make_images("noto-emoji/png32.tar.gz"):
        code = stem.removeprefix("emoji_u")
        name = unicodedata.name(chr(int(code, 16)), "") if "_" not in code else ""
        if name:
            named.append((name.lower(), image))
    return named


def save_mixed(image: Image.Image, folder: Path, index: int) -> str:
    """Save as one of the kinds that real folders mix: sizes, modes and formats -> the file name."""
    side = (24, 32, 48, 64)[index % 4]
    image = image.convert("RGBA").resize((side, side if index % 3 else side + 8))
    name = f"{index:04d}.png"
    if index % 5 == 0:
        image.convert("RGB").save(folder / (name := f"{index:04d}.jpg"))
    elif index % 5 == 1:
        image.convert("P").save(folder / name)
    elif index % 5 == 2:
        image.convert("LA").save(folder / name)
    else:
        image.save(folder / name)
    return name


@pytest.mark.skipif(not IMAGES.is_dir(), reason=f"no images in {IMAGES}; set T2IALIGN_DATA")
def test_from_a_folder_of_images_to_a_lora(tmp_path: Path) -> None:
    data, output = tmp_path / "images", tmp_path / "run"
    captions = []
    for side in ("chosen", "rejected"):
        (data / side).mkdir(parents=True)
    pairs = zip(emoji()[::5], make_images("silk-icons/icons.tar.gz")[::3], strict=False)
    for index, ((name, good), (_, bad)) in zip(range(COUNT), pairs, strict=False):
        file = save_mixed(good, data / "chosen", index)
        bad.convert("RGBA").save(data / "rejected" / f"{Path(file).stem}.png")
        captions.append({"file_name": file, "text": name})
    (data / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in captions))

    command = (
        f"train dpo data={data} output={output} batch_size=16 accumulate=1 max_steps=30 lr=5e-4 beta=1000"
    )
    options = "holdout=0.25 evaluate_every=30 safeguard=0.3 trackers=[]"
    assert main([*command.split(), *options.split()]) == 0

    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    held_out = [row["heldout/implicit_acc"] for row in rows if "heldout/implicit_acc" in row]
    assert held_out[0] == 0.5  # the policy is the reference: every pair is a tie
    print("held-out implicit accuracy", held_out)
    assert held_out[-1] >= 0.7

    pipe = StableDiffusionPipeline.from_pretrained(folder("toy"))
    pipe.set_progress_bar_config(disable=True)
    prompt = {"prompt": captions[0]["text"], "num_inference_steps": 4, "output_type": "pt"}
    before = pipe(**prompt, generator=torch.Generator().manual_seed(0)).images
    pipe.load_lora_weights(output)
    after = pipe(**prompt, generator=torch.Generator().manual_seed(0)).images
    assert (before - after).abs().max() > 0.01
