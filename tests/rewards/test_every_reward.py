"""Every reward that ships: `reference` agrees with the tensor path, and images of any kind are taken."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from transformers import Qwen2VLModel

import rewards
from rewards import Prepared, Reward, trained
from rewards.detection import ocr
from rewards.scorers import checklist, image_reward, mps, unified_reward, vqa
from rewards.scorers.hpsv3 import HPSv3
from rewards.vlm.base import Judge
from tests.rewards import tiny_clip
from tests.rewards.scorers import test_hpsv3, test_image_reward, test_mps

PROMPTS = ["a red circle", "a blue square"]
NO_IMAGES = {"latent"}
LAST = {"clipscore", "aesthetic", "imagereward"}
FIRST = {"pickscore", "mps", "hpsv2", "simulacra"}


class Light(Judge):
    """Says yes to what is bright, and writes how bright it is."""

    def _answer(self, images, questions, rows):
        yes = images[list(rows)].mean((1, 2, 3))
        return torch.stack([yes, 1 - yes], dim=1).log()

    def _write(self, images, questions, rows, tokens, cut):
        return [f"Final Score: {1 + 4 * float(images[row].mean()):.4f}" for row in rows]


class Reader(ocr.TextReader):
    """Reads the brightness of an image as a number."""

    def read(self, images):
        square = ((0.0, 0.0), (9.0, 0.0), (9.0, 3.0), (0.0, 3.0))
        return [[ocr.Line(f"{float(image.mean()):.3f}", 0.9, square)] for image in images]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files of every kind that a reward is made of."""
    root = tmp_path_factory.mktemp("weights")
    tiny_clip.save_folder(tiny_clip.random_model(), root / "clip")
    save_file({"weight": torch.randn(1, tiny_clip.DIM), "bias": torch.ones(1)}, root / "head.safetensors")
    (root / "vocab.txt").write_text("\n".join(test_image_reward.WORDS) + "\n", encoding="utf-8")
    state = {key: value.float() for key, value in test_image_reward.tiny_state().items()}
    torch.save(state, root / "ImageReward.pt")
    (root / "mps").mkdir()
    state = {
        key: value.float() for key, value in test_mps.tiny_state().items() if "position" not in key[-12:]
    }
    save_file(state, root / "mps" / "MPS_overall_checkpoint.safetensors")
    rows = [
        {"prompt": p, "tag": "single_object", "include": [{"class": kind, "count": 1, "color": colour}]}
        for p, (_, colour, kind) in zip(PROMPTS, (prompt.split() for prompt in PROMPTS), strict=True)
    ]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    list_ = {"answers": "signed", "alignment": 1.0, "items": [{"question": "Is it bright?", "weight": 0.5}]}
    (root / "list.json").write_text(json.dumps(list_), encoding="utf-8")
    base = rewards.load("toy-clip")
    name, weight = next(iter(base.state_dict().items()))
    trained.save(root / "trained", {name: weight + 0.1}, {"reward": "toy-clip", "options": {}})
    return root


def made(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Reward:
    """The reward of this name on those files; what has no weights is loaded as it is."""
    for module in (vqa, checklist, unified_reward):
        monkeypatch.setattr(module, "judge", lambda *_, **__: Light())
    monkeypatch.setattr(image_reward, "configurations", test_image_reward.tiny_configurations)
    monkeypatch.setattr(mps, "configuration", test_mps.tiny_config)
    monkeypatch.setattr(mps, "clip_tokens", lambda style: test_mps.tiny_tokens())
    monkeypatch.setattr(mps, "LAYERS", test_mps.LAYERS)
    monkeypatch.setattr(mps, "HEADS", test_mps.HEADS)
    clip = {"weights": str(root / "clip"), "architecture": None}
    head = {"weights": str(root / "head.safetensors"), "clip": str(root / "clip")}
    objects = {"metadata": root / "metadata.jsonl", "weights": "toy"}
    options: dict[str, dict[str, Any]] = {
        "clipscore": clip,
        "pickscore": clip,
        "hpsv2": {**clip, "filename": None},
        "aesthetic": head,
        "simulacra": head,
        "imagereward": {"weights": str(root), "vocabulary": str(root / "vocab.txt")},
        "mps": {"weights": str(root / "mps")},
        "vqascore": {},
        "checklist": {"checklist": str(root / "list.json")},
        "evaluator": {"backend": "oracle"},
        "geneval": {**objects, "colour_weights": "toy"},
        "count": objects,
        "ocr": {"reader": Reader()},
        "text": {"reader": Reader()},
        "trained": {"weights": root / "trained"},
    }
    if name == "hpsv3":
        torch.manual_seed(0)
        backbone = Qwen2VLModel(test_hpsv3.tiny_config())
        return HPSv3(backbone, test_hpsv3.words(), rubric=test_hpsv3.ENDED, pixels=test_hpsv3.PIXELS).eval()
    reward = rewards.load(name, **options.get(family(name), {}))
    if name in ("imagereward", "mps"):  # of 224 pixels in the released files
        side = test_image_reward.SIZE if name == "imagereward" else test_mps.SIZE
        reward.geometry = type(reward.geometry)(**{**vars(reward.geometry), "size": side})
    return reward.requires_grad_(False)


def family(name: str) -> str:
    """ "aesthetic-v1-b32" -> "aesthetic", "hpsv2.1" -> "hpsv2"."""
    return name.partition("-")[0].partition(".")[0]


def drawn(side: int) -> list[Image.Image]:
    """A red circle and a blue square on noise."""
    images = []
    for seed, colour in enumerate(("red", "blue")):
        noise = np.random.default_rng(seed).integers(200, 256, (side, side, 3), dtype=np.uint8)
        image = Image.fromarray(noise)
        box = (side // 5, side // 5, side // 2, side // 2)
        (ImageDraw.Draw(image).rectangle if seed else ImageDraw.Draw(image).ellipse)(box, fill=colour)
        images.append(image)
    return images


@pytest.mark.parametrize("name", sorted(set(rewards.names()) - NO_IMAGES))
def test_reference_agrees_with_the_tensor_path_whatever_the_images_come_as(
    name, folder, tmp_path, monkeypatch
):
    """On 8-bit images of the size that the scorer reads, where nothing is resized, whatever they come as."""
    reward = made(name, folder, monkeypatch)
    prompts = ['a sign "0.91"', 'a sign "0.85"'] if family(name) == "ocr" else PROMPTS
    side = reward.geometry.size if isinstance(reward, Prepared) else 56 if name == "hpsv3" else 32
    images = drawn(side)
    arrays = [np.array(image) for image in images]
    tensors = torch.stack([torch.from_numpy(array).permute(2, 0, 1).float() / 255 for array in arrays])
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    with torch.no_grad():
        expected = reward(tensors, prompts).tolist()
    near = pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert reward.reference(images, prompts).tolist() == near
    for given in (
        images,
        paths,
        [str(path) for path in paths],
        arrays,
        np.stack(arrays),
        [array / 255 for array in arrays],
        list(tensors),
        [tensors[0], paths[1]],
        (one for one in images),
    ):
        assert reward(given, prompts).tolist() == near
    assert reward(images[1], prompts[1]).tolist() == pytest.approx(expected[1:], rel=1e-4, abs=1e-4)
    assert reward(tensors[1], prompts[1]).tolist() == pytest.approx(expected[1:], rel=1e-4, abs=1e-4)
    larger = drawn(side + 9)[0]
    if name != "toy-oracle" and family(name) != "geneval":  # whose world has images of one size
        alone = [*reward(images[0], prompts[0]).tolist(), *reward(larger, prompts[0]).tolist()]
        assert reward([images[0], larger], prompts[0]).tolist() == pytest.approx(alone, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", sorted(set(rewards.names()) - NO_IMAGES))
def test_each_follows_its_own_authors_when_it_makes_rgb(name, folder, monkeypatch):
    reward = made(name, folder, monkeypatch)
    if family(name) in LAST | FIRST:
        assert isinstance(reward, Prepared)
        wanted = "last" if family(name) in LAST else "first"
        assert reward.geometry.source == "float" or reward.geometry.rgb == wanted
    image = drawn(64)[0].convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((64, 64)))
    plain = image.convert("RGB")
    prompt = 'a sign "0.91"' if family(name) == "ocr" else PROMPTS[0]
    same = reward.reference(image, prompt).tolist() == reward.reference(plain, prompt).tolist()
    assert same == (family(name) not in LAST)
