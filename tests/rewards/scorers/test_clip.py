"""CLIP scorers on random-weight models of the real classes: parity, traps, gradients, loading."""

import math
import os
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

import rewards
from rewards.preprocess import Geometry
from rewards.scorers import hpsv2
from rewards.scorers.aesthetic import CLIPS
from rewards.scorers.clip import NAMES, ClipScore
from rewards.towers.clip_towers import load_tower
from rewards.towers.two_tower import Tower
from tests.rewards import tiny_clip

SMALL = Geometry(32)
DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
"""Of what two copies of the same weights compute: kernels may round otherwise at another address."""
PROMPTS = ["a red circle", "two dogs in a park", "a very old car on a hill, oil painting, 1950s"]


def directional(reward: rewards.Reward, images: Tensor, prompts: list[str]) -> tuple[float, float]:
    """Derivative of the sum of scores along a random direction: by autograd and by central difference."""
    torch.manual_seed(1)
    direction = torch.randn_like(images)
    images = images.requires_grad_()
    (gradient,) = torch.autograd.grad(reward(images, prompts).sum(), images)
    step = 1e-5
    with torch.no_grad():
        ahead, behind = (reward(images + s * step * direction, prompts).sum() for s in (1, -1))
    return float((gradient * direction).sum()), float((ahead - behind) / (2 * step))


class Fixed(Tower):
    """Embeds every image as `image`, and keeps the prompts it was given."""

    def __init__(self, image: list[float]) -> None:
        super().__init__()
        self.image, self.texts_encoded = torch.tensor([image]), list[str]()
        self.weight = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.image.expand(len(pixels), -1)

    def encode_text(self, prompts: list[str]) -> Tensor:
        self.texts_encoded += prompts
        return torch.tensor([[1.0, 0.0]]).expand(len(prompts), -1)

    def text_parameters(self) -> list[torch.nn.Parameter]:
        return [self.weight]


def test_the_papers_form_is_two_and_a_half_times_the_positive_cosine_of_a_prefixed_caption():
    declared = NAMES["clipscore"]
    assert declared["weights"] == "openai/clip-vit-base-patch32"
    options = {name: declared[name] for name in ("prefix", "factor", "floor")}
    for image, expected in ([0.6, 0.8], 1.5), ([-0.6, 0.8], 0.0):
        tower = Fixed(image)
        assert ClipScore(tower, SMALL, **options)(torch.rand(1, 3, 32, 32), ["a cat"]).tolist() == [expected]
        assert tower.texts_encoded == ["A photo depicts a cat"]
        assert ClipScore(tower, SMALL)(torch.rand(1, 3, 32, 32), ["a cat"]).item() == pytest.approx(image[0])


def test_score_is_that_of_the_librarys_own_forward():
    """logits_per_image of transformers and of open_clip, divided by the scale."""
    model = tiny_clip.random_model()
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        logits = model(
            input_ids=open_clip.tokenize(PROMPTS), pixel_values=SMALL.tensor(images)
        ).logits_per_image
    score = ClipScore(tiny_clip.tower(), SMALL)(images, PROMPTS)
    assert (score - logits.diagonal() / math.exp(2.5)).abs().max() < 1e-6
    other = tiny_clip.open_clip_tower(tiny_clip.to_open_clip(model.state_dict()), quick=True)
    with torch.no_grad():
        image, text, scale = other.model(SMALL.tensor(images), open_clip.tokenize(PROMPTS))
    assert scale == pytest.approx(math.exp(2.5))
    assert (ClipScore(other, SMALL)(images, PROMPTS) - (image * text).sum(-1)).abs().max() < 1e-6


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_quick_gelu_is_not_gelu(act):
    """The same weights in both libraries agree with the right activation, and only with that."""
    model = tiny_clip.random_model(act=act)
    state = tiny_clip.to_open_clip(model.state_dict())
    images = torch.rand(3, 3, 32, 32)
    scores = ClipScore(tiny_clip.TransformersClip(model, tiny_clip.TOKENS), SMALL)(images, PROMPTS)
    for quick in (True, False):
        twin = ClipScore(tiny_clip.open_clip_tower(state, quick), SMALL)(images, PROMPTS)
        difference = (scores - twin).abs().max()
        assert difference < 1e-6 if quick == (act == "quick_gelu") else difference > 1e-3


def test_every_name_on_openais_weights_asks_for_quick_gelu():
    openai = {n: o["architecture"] for n, o in NAMES.items() if o["weights"].startswith("openai/")}
    openai |= {suffix: architecture for suffix, (_, architecture) in CLIPS.items()}
    assert len(openai) == 6
    for architecture in openai.values():
        assert open_clip.get_model_config(architecture)["quick_gelu"] is True
    assert not open_clip.get_model_config(hpsv2.build.__kwdefaults__["architecture"]).get("quick_gelu")


def test_the_short_text_forward_is_open_clips_full_one():
    twin = tiny_clip.open_clip_tower(
        tiny_clip.to_open_clip(tiny_clip.random_model().state_dict()), quick=True
    )
    long = [*PROMPTS, "word " * 90]
    with torch.no_grad():
        full = twin.model.encode_text(open_clip.tokenize(long), normalize=True)
    assert (twin.encode_text(long) - full).abs().max() < 1e-6
    assert (tiny_clip.tower().encode_text(long) - full).abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["transformers", "open_clip"])
def test_gradients_of_the_image(kind):
    model = tiny_clip.random_model()
    tower = tiny_clip.TransformersClip(model, tiny_clip.TOKENS)
    if kind == "open_clip":
        tower = tiny_clip.open_clip_tower(tiny_clip.to_open_clip(model.state_dict()), quick=True)
    reward = ClipScore(tower, SMALL).double()
    torch.manual_seed(0)
    exact, measured = directional(reward, torch.rand(2, 3, 40, 36).double() * 0.8 + 0.1, PROMPTS[:2])
    assert exact == pytest.approx(measured, rel=1e-6)
    assert abs(exact) > 1e-3


def test_a_batch_of_one_stays_a_batch_and_rows_do_not_mix():
    reward = ClipScore(tiny_clip.tower(), SMALL)
    images = torch.rand(3, 3, 32, 32)
    together = reward(images, PROMPTS)
    for row in range(3):
        alone = reward(images[row : row + 1], PROMPTS[row : row + 1])
        assert alone.shape == (1,)
        assert alone.item() == pytest.approx(together[row].item(), abs=1e-6)


@pytest.mark.skipif(not (DATA / "images" / "skimage").is_dir(), reason="no images in T2IALIGN_DATA")
def test_reference_and_tensor_path_agree_on_real_images():
    files = sorted((DATA / "images" / "skimage").rglob("*.*g"))
    images = [Image.open(file).convert("RGB") for file in files]
    torch.manual_seed(0)
    model = CLIPModel(tiny_clip.config(size=224, patch=32)).eval()  # of the size its authors start from
    reward = ClipScore(tiny_clip.TransformersClip(model, tiny_clip.TOKENS), Geometry(224))
    prompts = [file.stem for file in files]
    reference = reward.reference(images, prompts)
    tensors = [torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255 for image in images]
    ours = torch.cat([reward(t, [p]) for t, p in zip(tensors, prompts, strict=True)])
    assert reference.std() > 0.01
    assert (reference - ours).abs().max() < 1e-3
    assert not reference.requires_grad
    with pytest.raises(ValueError, match="got 2 prompts for 10 rows"):
        reward.reference(images, prompts[:2])


def test_bfloat16_drifts_by_less_than_a_hundredth():
    """The toy CLIP, whose weights are trained ones; embeddings are normalised and compared in fp32."""
    whole, half = rewards.load("toy-clip"), rewards.load("toy-clip")
    half.tower.model.bfloat16()
    torch.manual_seed(0)
    images = torch.rand(16, 3, 32, 32)
    prompts = ["a red circle", "three blue squares"] * 8
    drift = (whole(images, prompts) - half(images, prompts)).abs()
    assert half(images, prompts).dtype == torch.float32
    assert 0 < drift.max() < 0.01


def test_the_released_checkpoints_keys_are_those_the_model_expects():
    """Lists written from the module definitions; configurations as published, without memory."""
    with torch.device("meta"):
        huge = open_clip.CLIP(**open_clip.get_model_config("ViT-H-14"))
        large = open_clip.CLIP(**open_clip.get_model_config("ViT-L-14-quickgelu"))
        text = {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
        }
        vision = {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
        }
        pick = CLIPModel(
            CLIPConfig(text_config=text, vision_config={**vision, "patch_size": 14}, projection_dim=1024)
        )
    assert set(huge.state_dict()) == set(tiny_clip.open_clip_keys(32, 24))
    assert set(large.state_dict()) == set(tiny_clip.open_clip_keys(24, 12))
    assert set(pick.state_dict()) == set(tiny_clip.transformers_keys(32, 24))
    count = 986_109_441  # parameters of a ViT-H/14, as open_clip's own table states them: 986.11 M
    assert sum(weight.numel() for weight in huge.parameters()) == count
    assert sum(weight.numel() for weight in pick.parameters()) == count


def test_one_image_a_call_reads_each_prompt_once(monkeypatch):
    """A thousand calls with one prompt tokenise and encode it once."""
    reward, read = ClipScore(tiny_clip.tower(), SMALL), []
    encode = reward.tower.tokens.encode
    monkeypatch.setattr(reward.tower.tokens, "encode", lambda prompt: read.append(prompt) or encode(prompt))
    rows = tiny_clip.counts(reward.tower, "text")
    for image in torch.rand(6, 1, 3, 32, 32):
        reward(image, PROMPTS[:1])
    assert (read, rows) == (PROMPTS[:1], [1])


class TestLoading:
    def test_transformers_folder(self, tmp_path):
        model = tiny_clip.random_model()
        folder = tiny_clip.save_folder(model, tmp_path)
        images = torch.rand(2, 3, 50, 40)
        reward = rewards.load("clipscore-l", weights=str(folder))
        expected = ClipScore(tiny_clip.tower(), SMALL)(images, PROMPTS[:2])
        torch.testing.assert_close(reward(images, PROMPTS[:2]), expected, **CLOSE)
        assert not reward.training
        assert not any(weight.requires_grad for weight in reward.parameters())

    def test_old_pytorch_file_with_position_ids(self, tmp_path):
        model = tiny_clip.random_model()
        tiny_clip.save_folder(model, tmp_path)
        (tmp_path / "model.safetensors").unlink()
        ids = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
        torch.save({**model.state_dict(), **ids}, tmp_path / "pytorch_model.bin")
        tower = load_tower(str(tmp_path))
        torch.testing.assert_close(
            tower.encode_text(PROMPTS), tiny_clip.tower().encode_text(PROMPTS), **CLOSE
        )

    def test_open_clip_file(self, tmp_path, monkeypatch):
        state = tiny_clip.to_open_clip(tiny_clip.random_model().state_dict())
        torch.save(
            {"epoch": 1, "state_dict": {f"module.{k}": v.half() for k, v in state.items()}}, tmp_path / "c.pt"
        )
        monkeypatch.setattr(
            open_clip, "get_model_config", lambda name: tiny_clip.open_clip_config(name == "quick")
        )
        rounded = {name: value.half().float() for name, value in state.items()}
        for architecture in ("quick", "plain"):
            tower = load_tower(str(tmp_path / "c.pt"), architecture=architecture)
            twin = tiny_clip.open_clip_tower(rounded, architecture == "quick")
            torch.testing.assert_close(tower.encode_text(PROMPTS), twin.encode_text(PROMPTS), **CLOSE)
            pixels = torch.randn(2, 3, 32, 32)
            torch.testing.assert_close(tower.encode_image(pixels), twin.encode_image(pixels), **CLOSE)

    def test_precision(self, tmp_path):
        tower = load_tower(str(tiny_clip.save_folder(tiny_clip.random_model(), tmp_path)), dtype="bfloat16")
        assert tower.model.text_projection.weight.dtype == torch.bfloat16
        assert tower.encode_text(PROMPTS).dtype == torch.float32
        with pytest.raises(ValueError, match="got dtype 'int8'; expected float32, bfloat16"):
            load_tower(str(tmp_path), dtype="int8")

    def test_missing_and_odd_weights_are_named(self, tmp_path):
        model = tiny_clip.random_model()
        tiny_clip.save_folder(model, tmp_path)
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        state["extra"] = torch.ones(1)
        del state["visual_projection.weight"]
        save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(
            ValueError, match=r"lacks 1 weights \(visual_proj.*\) and has 1 that do not belong \(extra\)"
        ):
            load_tower(str(tmp_path))
        save_file({"classifier.weight": torch.ones(1)}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=r"with keys such as classifier.weight; expected a CLIP"):
            load_tower(str(tmp_path))

    def test_what_is_needed_beside_the_weights(self, tmp_path):
        tiny_clip.save_folder(tiny_clip.random_model(), tmp_path)
        (tmp_path / "config.json").unlink()
        with pytest.raises(ValueError, match=r"without config.json beside it"):
            load_tower(str(tmp_path))
        save_file(
            tiny_clip.to_open_clip(tiny_clip.random_model().state_dict()), tmp_path / "model.safetensors"
        )
        with pytest.raises(ValueError, match=r"got architecture None for .*ViT-L-14-quickgelu"):
            load_tower(str(tmp_path))
        with pytest.raises(ValueError, match="got no weights; expected a CLIP"):
            rewards.load("rewards.scorers.clip")
