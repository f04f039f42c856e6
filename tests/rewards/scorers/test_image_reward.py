"""ImageReward against the authors' forward written out formula by formula, on random weights."""

import logging
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import BlipTextConfig, BlipVisionConfig

import rewards
from rewards.keys import load_exactly, on_meta
from rewards.preprocess import CLIP_224, Geometry
from rewards.scorers import image_reward
from rewards.scorers.image_reward import ImageReward, bert_tokens, configurations, translate

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "cat", "dog", "on", "mat", "##s", "two"]
VISION = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {"hidden_size": 12, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
SIZE, PATCH, POSITIONS = 32, 16, 64
PROMPTS = ["a red cat", "two dogs on a mat", "cat"]


def vision_keys(width, layers, side, patch, ratio=4):
    """The image encoder of the authors' vit.py: name -> shape."""
    keys = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, (side // patch) ** 2 + 1, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    shapes = {
        "norm1": (width,),
        "norm2": (width,),
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.fc1": (ratio * width, width),
        "mlp.fc2": (width, ratio * width),
    }
    for layer in range(layers):
        for name, shape in shapes.items():
            keys[f"blocks.{layer}.{name}.weight"] = shape
            keys[f"blocks.{layer}.{name}.bias"] = shape[:1]
    return {f"blip.visual_encoder.{key}": shape for key, shape in keys.items()}


def text_keys(words, width, wide, layers, image, positions):
    """The text encoder of the authors' med.py without its pooler: name -> shape."""
    keys = {
        "embeddings.word_embeddings.weight": (words, width),
        "embeddings.position_embeddings.weight": (positions, width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
        "embeddings.position_ids": (1, positions),
    }
    shapes = {
        "intermediate.dense": (wide, width),
        "output.dense": (width, wide),
        "output.LayerNorm": (width,),
    }
    for part, source in (("attention", width), ("crossattention", image)):
        shapes[f"{part}.self.query"] = (width, width)
        shapes[f"{part}.self.key"] = shapes[f"{part}.self.value"] = (width, source)
        shapes[f"{part}.output.dense"] = (width, width)
        shapes[f"{part}.output.LayerNorm"] = (width,)
    for layer in range(layers):
        for name, shape in shapes.items():
            keys[f"encoder.layer.{layer}.{name}.weight"] = shape
            keys[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
    return {f"blip.text_encoder.{key}": shape for key, shape in keys.items()}


def other_keys(text, image):
    """BLIP's two projections and the authors' head: name -> shape."""
    keys = {}
    for name, width in (("vision", image), ("text", text)):
        keys |= {f"blip.{name}_proj.weight": (256, width), f"blip.{name}_proj.bias": (256,)}
    sizes = (text, 1024, 128, 64, 16, 1)
    for index, (place, size) in enumerate(zip((0, 2, 4, 6, 7), sizes, strict=False)):
        keys[f"mlp.layers.{place}.weight"] = (sizes[index + 1], size)
        keys[f"mlp.layers.{place}.bias"] = (sizes[index + 1],)
    return keys


def tiny_state(seed=0, scale=0.3):
    generator = torch.Generator().manual_seed(seed)
    keys = {
        **vision_keys(VISION["hidden_size"], 2, SIZE, PATCH),
        **text_keys(len(WORDS) + 2, TEXT["hidden_size"], TEXT["intermediate_size"], 2, 16, POSITIONS),
        **other_keys(TEXT["hidden_size"], VISION["hidden_size"]),
    }
    state = {}
    for key, shape in keys.items():
        value = torch.randn(shape, generator=generator, dtype=torch.float64)
        norm = key.endswith(("norm.weight", "norm1.weight", "norm2.weight", "LayerNorm.weight"))
        state[key] = 1 + 0.1 * value if norm else scale * value
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    return state


def tiny_configurations():
    vision = BlipVisionConfig(**VISION, image_size=SIZE, patch_size=PATCH, layer_norm_eps=1e-6)
    text = BlipTextConfig(
        **TEXT,
        vocab_size=len(WORDS) + 2,
        encoder_hidden_size=VISION["hidden_size"],
        max_position_embeddings=POSITIONS,
        layer_norm_eps=1e-12,
        is_decoder=True,
    )
    return vision, text


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    file = tmp_path_factory.mktemp("bert") / "vocab.txt"
    file.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def twin(vocabulary):
    """The reward in float64 and the state dict, under the authors' names, that it was loaded from."""
    state = tiny_state()
    reward = on_meta(lambda: ImageReward(*tiny_configurations(), bert_tokens(vocabulary), Geometry(SIZE)))
    load_exactly(reward, translate(state), "a test")
    return reward.eval().requires_grad_(False), state


def make_images(count, seed=1, side=SIZE):
    return torch.rand(
        count, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def attention(x, source, state, name, heads, mask=None):
    """Softmax attention of x over source, head by head, with the authors' additive mask."""
    parts = {k: F.linear(x if k == "query" else source, *pair(state, f"{name}.self.{k}")) for k in QKV}
    width = x.shape[-1] // heads
    out = []
    for head in range(heads):
        query, key, value = (parts[k][..., head * width : (head + 1) * width] for k in QKV)
        scores = query @ key.transpose(-1, -2) / math.sqrt(width)
        out.append((scores if mask is None else scores + mask).softmax(-1) @ value)
    return torch.cat(out, -1)


QKV = ("query", "key", "value")


def pair(state, name):
    return state[f"{name}.weight"], state[f"{name}.bias"]


def norm(x, state, name, eps):
    return F.layer_norm(x, x.shape[-1:], *pair(state, name), eps=eps)


def authors_image(state, pixels):
    """vit.py: pre-norm blocks on patches and a class token, a norm at the end."""
    at = "blip.visual_encoder"
    x = F.conv2d(pixels, *pair(state, f"{at}.patch_embed.proj"), stride=PATCH).flatten(2).transpose(1, 2)
    x = torch.cat([state[f"{at}.cls_token"].expand(len(x), -1, -1), x], 1) + state[f"{at}.pos_embed"]
    heads, width = VISION["num_attention_heads"], VISION["hidden_size"]
    for layer in range(VISION["num_hidden_layers"]):
        block = f"{at}.blocks.{layer}"
        qkv = F.linear(norm(x, state, f"{block}.norm1", 1e-6), *pair(state, f"{block}.attn.qkv"))
        query, key, value = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.split(width, dim=-1)
        )
        weights = (query @ key.transpose(-1, -2) / math.sqrt(width // heads)).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        x = x + F.linear(mixed, *pair(state, f"{block}.attn.proj"))
        wide = F.gelu(F.linear(norm(x, state, f"{block}.norm2", 1e-6), *pair(state, f"{block}.mlp.fc1")))
        x = x + F.linear(wide, *pair(state, f"{block}.mlp.fc2"))
    return norm(x, state, f"{at}.norm", 1e-6)


def authors_score(state, pixels, ids, read):
    """med.py: post-norm layers of self-attention, cross-attention and feed-forward; then the head on CLS."""
    states, at, heads = authors_image(state, pixels), "blip.text_encoder", TEXT["num_attention_heads"]
    x = F.embedding(ids, state[f"{at}.embeddings.word_embeddings.weight"])
    x = x + state[f"{at}.embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = norm(x, state, f"{at}.embeddings.LayerNorm", 1e-12)
    mask = (1.0 - read[:, None, :].double()) * -10000.0
    for layer in range(TEXT["num_hidden_layers"]):
        block = f"{at}.encoder.layer.{layer}"
        for part, source, hidden in (("attention", None, mask), ("crossattention", states, None)):
            name = f"{block}.{part}"
            seen = attention(x, x if source is None else source, state, name, heads, hidden)
            seen = F.linear(seen, *pair(state, f"{name}.output.dense"))
            x = norm(seen + x, state, f"{name}.output.LayerNorm", 1e-12)
        wide = F.gelu(F.linear(x, *pair(state, f"{block}.intermediate.dense")))
        x = norm(
            F.linear(wide, *pair(state, f"{block}.output.dense")) + x,
            state,
            f"{block}.output.LayerNorm",
            1e-12,
        )
    out = x[:, 0]
    for place in (0, 2, 4, 6, 7):
        out = F.linear(out, *pair(state, f"mlp.layers.{place}"))
    return (out[:, 0] - 0.16717362830052426) / 1.0333394966054072


def padded(ids, length=35):
    """As the authors' tokenizer returns them: padded with 0 to 35, with a mask of what is text."""
    rows = torch.zeros(len(ids), length, dtype=torch.long)
    for row, tokens in zip(rows, ids, strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
    return rows, (torch.arange(length) < torch.tensor([len(tokens) for tokens in ids])[:, None]).long()


IDS = [[2, 5, 6, 7, 3], [2, 12, 8, 11, 9, 5, 10, 3], [2, 7, 3]]
"""PROMPTS by hand: [CLS] first, not BLIP's [ENC], "dogs" as "dog" and "##s", [SEP] last."""


def test_the_score_is_the_authors(twin):
    reward, state = twin
    images = make_images(3)
    expected = authors_score(state, normalised(images), *padded(IDS))
    assert torch.allclose(reward(images, PROMPTS), expected, atol=1e-12)
    assert expected.std() > 1e-3, "a scorer that says the same to everything would pass"


def normalised(images):
    mean, std = (torch.tensor(t, dtype=torch.float64).view(3, 1, 1) for t in (CLIP_224.mean, CLIP_224.std))
    return (images - mean) / std


def test_tokens_are_the_authors(twin):
    reward, _ = twin
    ids, read = reward._ids([*PROMPTS, PROMPTS[0]])
    assert [row[: int(n)].tolist() for row, n in zip(ids, read.sum(1), strict=True)] == [*IDS, IDS[0]]
    assert reward.tokens.encode("[ENC] [DEC]") == [14, 13], "the two tokens that BLIP adds come last"


def test_a_prompt_is_read_up_to_35_tokens(twin, caplog):
    reward, state = twin
    images = make_images(1)
    long = "a red cat " * 11  # 33 words between [CLS] and [SEP]
    with caplog.at_level(logging.WARNING):
        whole = reward(images, [long])
        assert not caplog.records
        assert torch.equal(reward(images, [long + "dog on mat"]), whole)
    assert "reads 33" in caplog.text
    assert "dog on mat" in caplog.text
    assert not torch.equal(reward(images, ["a red cat " * 10 + "a red dog"]), whole), "the 33rd word is read"
    ids = [[2, *[5, 6, 7] * 11, 3]]
    assert torch.allclose(whole, authors_score(state, normalised(images), *padded(ids)), atol=1e-12)


def test_the_affine_constants(twin, vocabulary):
    """With a head of zeros the score is (last bias - mean) / std."""
    _, state = twin
    reward = ImageReward(*tiny_configurations(), bert_tokens(vocabulary), Geometry(SIZE)).eval()
    dead = {key: torch.zeros_like(value) if key.startswith("mlp.") else value for key, value in state.items()}
    dead["mlp.layers.7.bias"] = torch.tensor([1.2005131249])
    load_exactly(reward.double(), {k: v.double() for k, v in translate(dead).items()}, "a test")
    assert reward(make_images(1), ["cat"]).item() == pytest.approx(1.0, abs=1e-6)


def test_the_head_is_linear(twin):
    """No activation anywhere in it: f(a) + f(b) = f(a + b) + f(0)."""
    reward, _ = twin
    a, b = torch.randn(2, TEXT["hidden_size"], dtype=torch.float64) * 5
    assert torch.allclose(reward.mlp(a) + reward.mlp(b), reward.mlp(a + b) + reward.mlp(0 * a))


def test_a_score_does_not_depend_on_the_batch(twin):
    reward, _ = twin
    images = make_images(3)
    together = reward(images, PROMPTS)
    alone = torch.cat([reward(images[i : i + 1], [PROMPTS[i]]) for i in range(3)])
    assert alone.shape == (3,)
    assert torch.allclose(together, alone, atol=1e-12)


def test_a_table_encodes_each_image_once(twin):
    reward, _ = twin
    images, candidates, seen = make_images(2), [PROMPTS, [], ["a", *PROMPTS[:1]]], []
    images = torch.cat([images, make_images(1, seed=5)])
    handle = reward.vision.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    table = reward.table(images, candidates)
    handle.remove()
    assert seen == [3]
    for image, prompts, scores in zip(images, candidates, table, strict=True):
        single = [reward(image[None], [prompt]).item() for prompt in prompts]
        assert scores.tolist() == pytest.approx(single, abs=1e-12)


def test_the_gradient_of_the_image_is_the_slope(twin):
    reward, _ = twin
    images = (0.25 + 0.5 * make_images(2)).requires_grad_()
    (slope,) = torch.autograd.grad(reward(images, PROMPTS[:2]).sum(), images)
    step = 1e-5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        rise = (reward(images + step, PROMPTS[:2]) - reward(images - step, PROMPTS[:2])).sum() / 2
    assert rise.item() == pytest.approx((slope * step).sum().item(), rel=1e-6)
    assert slope.abs().amax((1, 2, 3)).min() > 0, "both images get a gradient"


def test_the_reference_path_reads_the_image(twin):
    """An image of the right size is not resized: both paths see the same pixels, for B = 1 too."""
    reward, _ = twin
    image = Image.effect_noise((SIZE, SIZE), 60).convert("RGB")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    assert reward.reference([image], ["a red cat"]).shape == (1,)
    assert torch.allclose(
        reward.reference([image], ["a red cat"]).float(),
        reward(pixels.double(), ["a red cat"]).float(),
        atol=1e-5,
    )


def test_the_released_checkpoint_fits_by_name_and_shape():
    """625 names of the released file, by the authors' modules at full size, against the full-size twin."""
    released = {
        **vision_keys(1024, 24, 224, 16),
        **text_keys(30524, 768, 3072, 12, 1024, 512),
        **other_keys(768, 1024),
    }
    assert len(released) == 294 + 317 + 4 + 10
    state = translate({key: torch.empty(shape, device="meta") for key, shape in released.items()})
    with torch.device("meta"):
        expected_state = ImageReward(*configurations(), tokens=None).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        key: tuple(value.shape) for key, value in expected_state.items()
    }
    vision, text = configurations()
    assert (vision.layer_norm_eps, text.layer_norm_eps, text.num_attention_heads) == (1e-6, 1e-12, 12)


@pytest.fixture
def folder(tmp_path, monkeypatch, vocabulary):
    monkeypatch.setattr(image_reward, "configurations", tiny_configurations)
    torch.save({key: value.float() for key, value in tiny_state().items()}, tmp_path / "ImageReward.pt")
    return tmp_path


def test_load_from_a_folder(folder, vocabulary, twin):
    reward = rewards.load("imagereward", weights=str(folder), vocabulary=str(vocabulary))
    assert not reward.training
    assert not any(weight.requires_grad for weight in reward.parameters())
    reward.geometry = Geometry(SIZE)
    images = make_images(2).float()
    assert torch.allclose(
        reward(images, PROMPTS[:2]), twin[0](images.double(), PROMPTS[:2]).float(), atol=1e-4
    )
    half = rewards.load(
        "imagereward", weights=str(folder), vocabulary=str(vocabulary.parent), dtype="bfloat16"
    )
    half.geometry = Geometry(SIZE)
    assert half(images, PROMPTS[:2]).dtype == torch.float32, "the head stays at float32"


@pytest.mark.parametrize("change", ["lacks", "extra", "shape"])
def test_another_checkpoint_is_refused(folder, vocabulary, change):
    state = tiny_state()
    if change == "lacks":
        del state["mlp.layers.0.weight"]
    if change == "extra":
        state["mlp.layers.9.weight"] = torch.zeros(1)
    if change == "shape":
        state["mlp.layers.0.bias"] = torch.zeros(7)
    torch.save(state, folder / "ImageReward.pt")
    with pytest.raises(ValueError, match=r"ImageReward\.pt.*expected"):
        rewards.load("imagereward", weights=str(folder), vocabulary=str(vocabulary))


def test_an_unknown_precision_is_refused(folder, vocabulary):
    with pytest.raises(ValueError, match="float8"):
        rewards.load("imagereward", weights=str(folder), vocabulary=str(vocabulary), dtype="float8")
