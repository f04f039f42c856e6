"""MPS against the authors' forward written out formula by formula, on random weights of their names."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

import rewards
from rewards.keys import load_exactly, on_meta
from rewards.preprocess import CLIP_MEAN, CLIP_STD, Geometry
from rewards.scorers import mps
from rewards.scorers.mps import CONDITION, kept_tokens, make, translate
from rewards.towers.cross_attention import CrossAttention
from rewards.towers.tokens import Tokens, from_transformers
from tests.conftest import tiny_tokenizer

SIZE, PATCH, LENGTH, WIDTH, HEADS, LAYERS = 28, 14, 32, 16, 2, 2
PATCHES = (SIZE // PATCH) ** 2 + 1
PROMPTS = ["a red cat", "two dogs", "light"]


def cross_keys(width, heads):
    """One layer of the authors' cross_modeling.py: name -> shape; the biases are buffers of zeros there."""
    return {
        "0.fn.norm.weight": (width,),
        "0.fn.norm.bias": (width,),
        "0.fn.to_q.weight": (heads * 64, width),
        "0.fn.to_kv.weight": (128, width),
        "0.fn.to_out.weight": (width, heads * 64),
        "0.fn.ff.0.weight": (8 * width, width),
        "0.fn.ff.2.weight": (width, 4 * width),
        "1.fn.norm.weight": (width,),
        "1.fn.norm.bias": (width,),
        "1.fn.rotary_emb.inv_freq": (32,),
        "1.fn.fused_attn_ff_proj.weight": (heads * 64 + 128 + 8 * width, width),
        "1.fn.attn_out.weight": (width, heads * 64),
        "1.fn.ff_out.1.weight": (width, 4 * width),
    }


CROSS = cross_keys(WIDTH, HEADS)


def tiny_config():
    words = len(tiny_tokenizer())
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPConfig(
        text_config={**sizes, "vocab_size": words, "max_position_embeddings": LENGTH, "hidden_act": "gelu"},
        vision_config={**sizes, "image_size": SIZE, "patch_size": PATCH, "hidden_act": "gelu"},
        projection_dim=WIDTH,
    )


def tiny_tokens() -> Tokens:
    return from_transformers(tiny_tokenizer(), LENGTH)


def frequencies(dtype=torch.float64):
    return (1.0 / 10000 ** (torch.arange(0, 64, 2).double() / 64)).to(dtype)


def tiny_state(seed=0):
    """Random weights under the authors' names, with the tables of 0, 1, 2, ... that old CLIPs carry."""
    torch.manual_seed(seed)
    clip = CLIPModel(tiny_config()).double()
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in clip.state_dict().items():
        noise = 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        state[f"model.{key}"] = 1 + noise if "norm" in key and key.endswith("weight") else noise
    state["model.logit_scale"] = torch.tensor(4.6052).double()
    state["model.text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]
    state["model.vision_model.embeddings.position_ids"] = torch.arange(PATCHES)[None]
    for layer in range(LAYERS):
        for name, shape in CROSS.items():
            value = 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
            if name.endswith("norm.weight"):
                value = 1 + value
            if name.endswith("norm.bias"):
                value = torch.zeros(shape, dtype=torch.float64)
            state[f"cross_model.layers.{layer}.{name}"] = value
        state[f"cross_model.layers.{layer}.1.fn.rotary_emb.inv_freq"] = frequencies()
    return state


def loaded(state, **options):
    reward = on_meta(
        lambda: make(
            tiny_config(), tiny_tokens(), layers=LAYERS, heads=HEADS, geometry=Geometry(SIZE), **options
        )
    )
    load_exactly(reward, translate(state, PATCHES), "a test")
    return reward.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def twin():
    """The reward in float64, and the state dict under the authors' names that it was loaded from."""
    state = tiny_state()
    return loaded(state), state


def make_images(count, seed=1):
    return torch.rand(
        count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def authors_cross(state, query, context, mask, inv_freq=None):
    """cross_modeling.py on a float mask (B, 1, L): every head one by one, all with the same key and value."""
    for layer in range(LAYERS):
        at = {name: state[f"cross_model.layers.{layer}.{name}"] for name in CROSS}
        x = F.layer_norm(query, (WIDTH,), at["0.fn.norm.weight"])
        key, value = F.linear(context, at["0.fn.to_kv.weight"]).split(64, -1)
        heads = F.linear(x, at["0.fn.to_q.weight"]).split(64, -1)
        seen = torch.cat([((q * 0.125) @ key.mT + mask).softmax(-1) @ value for q in heads], -1)
        value, gate = F.linear(x, at["0.fn.ff.0.weight"]).chunk(2, -1)
        wide = F.linear(F.silu(gate) * value, at["0.fn.ff.2.weight"])
        query = query + F.linear(seen, at["0.fn.to_out.weight"]) + wide

        x = F.layer_norm(query, (WIDTH,), at["1.fn.norm.weight"])
        fused = F.linear(x, at["1.fn.fused_attn_ff_proj.weight"])
        heads, key, value, ff = fused.split([HEADS * 64, 64, 64, 8 * WIDTH], -1)
        turn = torch.outer(torch.arange(x.shape[1]).to(x), at["1.fn.rotary_emb.inv_freq"].to(x))
        key = turned(key, turn)
        seen = [((turned(q, turn) / 8) @ key.mT).softmax(-1) @ value for q in heads.split(64, -1)]
        value, gate = ff.chunk(2, -1)
        wide = F.linear(F.silu(gate) * value, at["1.fn.ff_out.1.weight"])
        query = query + F.linear(torch.cat(seen, -1), at["1.fn.attn_out.weight"]) + wide
    return query


def turned(x, turn):
    """Rotation as multiplication of complex numbers x_i + j x_{i + 32} by e^{j angle}."""
    pairs = torch.polar(torch.ones_like(turn), turn) * torch.complex(x[..., :32], x[..., 32:])
    return torch.cat([pairs.real, pairs.imag], -1)


def ids_of(texts):
    """As the authors' tokenizer: to full length, filled with the end token (CLIP-H's padding)."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer(
        texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    ).input_ids


@torch.no_grad()
def authors_score(state, images, prompts, condition=CONDITION, threshold=0.3, whole_batch=False):
    """eval_overall_mps_on_hpdv2.py; `whole_batch` divides by the batch's maximum as clip_model.py does."""
    clip = CLIPModel(tiny_config()).double().eval()
    clip_state = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    clip.load_state_dict({k: v for k, v in clip_state.items() if not k.endswith("position_ids")})
    mean, std = (torch.tensor(t, dtype=torch.float64).view(3, 1, 1) for t in (CLIP_MEAN, CLIP_STD))
    text_ids, condition_ids = ids_of(prompts), ids_of([condition])
    text = clip.text_projection(clip.text_model(input_ids=text_ids).last_hidden_state)
    end = text[torch.arange(len(prompts)), text_ids.argmax(-1)]  # the end token has the largest number
    condition_tokens = clip.text_projection(clip.text_model(input_ids=condition_ids).last_hidden_state)
    image = clip.visual_projection(clip.vision_model(pixel_values=(images - mean) / std).last_hidden_state)
    like = torch.einsum("bid,bjd->bji", text, condition_tokens.expand(len(prompts), -1, -1)).amax(
        1, keepdim=True
    )
    like = like / (like.amax() if whole_batch else like.amax(-1, keepdim=True))
    mask = torch.where(like > threshold, 0.0, float("-inf"))
    seen = authors_cross(state, image, text, mask)[:, 0]
    cosine = (seen / seen.norm(dim=-1, keepdim=True) * end / end.norm(dim=-1, keepdim=True)).sum(-1)
    return state["model.logit_scale"].exp() * cosine


@pytest.mark.parametrize("threshold", [0.3, 0.9])
def test_the_score_is_the_authors(twin, threshold):
    reward, state = twin[0] if threshold == 0.3 else loaded(twin[1], threshold=threshold), twin[1]
    expected = torch.cat(
        [authors_score(state, make_images(3)[i : i + 1], [PROMPTS[i]], threshold=threshold) for i in range(3)]
    )
    assert torch.allclose(reward(make_images(3), PROMPTS), expected, atol=1e-9)
    assert expected.std() > 0.1, "a scorer that says the same to everything would pass"
    mask = reward.encode_text(PROMPTS).visible
    assert threshold == 0.3 or (mask.any(1).all() and not mask.all(1).any()), "some tokens, and not all"


def test_the_mask_is_of_each_sample_not_of_the_batch(twin):
    """In a batch where the two differ, each score is that of the sample alone."""
    reward, state = twin
    images, differs = make_images(2), 0
    for prompts in (["a red cat", "light"], ["light, color", "zq"], ["hands", "two dogs on a mat"]):
        alone = torch.cat([reward(images[i : i + 1], [prompts[i]]) for i in range(2)])
        assert torch.allclose(reward(images, prompts), alone, atol=1e-9)
        batch = authors_score(state, images, prompts, whole_batch=True)
        differs += not torch.allclose(batch, alone, atol=1e-6)
    assert differs, "the batch-wide mask is another one on some of these prompts"


def test_kept_tokens_by_hand():
    """The largest products with the condition are 4, 2, 1.19 | 1, 0.31, 0.05: relative to the first."""
    tokens = torch.tensor([[[4.0], [2.0], [1.19]], [[1.0], [0.31], [-0.5]]])
    assert kept_tokens(tokens, torch.tensor([[1.0], [-0.1]]), 0.3).tolist() == [
        [True, True, False],
        [True, True, False],
    ]
    assert kept_tokens(tokens, torch.tensor([[1.0], [-0.1]]), 0.25).tolist() == [
        [True, True, True],
        [True, True, False],
    ]


def test_a_masked_token_is_not_looked_at():
    torch.manual_seed(0)
    cross = CrossAttention(WIDTH, layers=2, heads=HEADS, length=5).eval()
    x, context, mask = (
        torch.randn(1, 5, WIDTH),
        torch.randn(1, 4, WIDTH),
        torch.tensor([[True, True, False, True]]),
    )
    other = context.clone()
    other[:, 2] += 10
    with torch.no_grad():
        assert torch.allclose(cross(x, context, mask), cross(x, other, mask))
        assert not torch.allclose(cross(x, context, mask), cross(x, other, mask | True))


def test_the_condition_has_the_papers_22_words():
    words = CONDITION.rstrip(".").split(", ")
    assert len(words) == len(set(words)) == 22
    assert (words[0], words[-1]) == ("light", "things")


def test_condition_and_threshold_are_options():
    state = tiny_state()
    images = make_images(1)
    for options in ({"condition": "hands"}, {"threshold": 0.9}):
        scores = loaded(state, **options)(images, ["a red cat"])
        assert torch.allclose(scores, authors_score(state, images, ["a red cat"], **options), atol=1e-9)


def test_padding_is_the_end_token_and_is_looked_at(twin):
    reward, _ = twin
    assert torch.equal(reward._padded(PROMPTS), ids_of(PROMPTS))
    assert reward._padded(["x" * 60]).tolist() == ids_of(["x" * 60]).tolist(), "and a long prompt is cut"


def test_a_table_encodes_each_image_and_prompt_once(twin):
    reward, _ = twin
    images, candidates, seen = make_images(2), [PROMPTS, ["a red cat"]], []
    handles = [
        reward.clip.vision_model.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(len(kwargs["pixel_values"])), with_kwargs=True
        ),
        reward.clip.text_model.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
        ),
    ]
    table = reward.table(images, candidates)
    for handle in handles:
        handle.remove()
    assert sorted(seen) == [2, 4], "two images; three prompts and the condition"
    for image, prompts, scores in zip(images, candidates, table, strict=True):
        single = [reward(image[None], [prompt]).item() for prompt in prompts]
        assert scores.tolist() == pytest.approx(single, abs=1e-9)


def test_the_gradient_of_the_image_is_the_slope(twin):
    reward, _ = twin
    images = (0.25 + 0.5 * make_images(2)).requires_grad_()
    (slope,) = torch.autograd.grad(reward(images, PROMPTS[:2]).sum(), images)
    step = 1e-5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        rise = (reward(images + step, PROMPTS[:2]) - reward(images - step, PROMPTS[:2])).sum() / 2
    assert rise.item() == pytest.approx((slope * step).sum().item(), rel=1e-6)
    assert slope.abs().amax((1, 2, 3)).min() > 0, "both images get a gradient"


def test_rotary_angles_keep_the_precision_they_were_trained_in():
    """float16 rounds position * frequency; a table that the module carried wins over its frequencies."""
    state = {"cross_model.layers.0.1.fn.rotary_emb.inv_freq": frequencies(torch.float16)}
    angles = translate(state, 257)["cross.layers.0.1.angles"]
    exact = torch.outer(torch.arange(257).double(), frequencies()).repeat(1, 2)
    assert 0.01 < (angles.double() - exact).abs().max() < 0.3
    assert torch.equal(angles[200, 1], torch.tensor(200.0).half() * frequencies(torch.float16)[1])
    state["cross_model.layers.0.1.fn.pos_emb"] = torch.full((300, 64), 2.0)
    assert torch.equal(translate(state, 257)["cross.layers.0.1.angles"], torch.full((257, 64), 2.0))
    state["cross_model.layers.0.1.fn.pos_emb"] = torch.full((5, 64), 2.0)
    assert torch.equal(translate(state, 257)["cross.layers.0.1.angles"], angles), (
        "a table too short is not used"
    )


def full_size_keys():
    """The authors' modules at full size: CLIP-H under `model.`, four layers of cross-attention."""
    keys = {"model.logit_scale": ()}
    parts = {"text": (1024, 4096, 24, (49408, 77)), "vision": (1280, 5120, 32, None)}
    for name, (width, wide, layers, words) in parts.items():
        at = f"model.{name}_model"
        for layer in range(layers):
            block = f"{at}.encoder.layers.{layer}"
            for linear in ("q_proj", "k_proj", "v_proj", "out_proj"):
                keys[f"{block}.self_attn.{linear}.weight"] = (width, width)
                keys[f"{block}.self_attn.{linear}.bias"] = (width,)
            for norm in ("layer_norm1", "layer_norm2"):
                keys[f"{block}.{norm}.weight"] = keys[f"{block}.{norm}.bias"] = (width,)
            keys |= {f"{block}.mlp.fc1.weight": (wide, width), f"{block}.mlp.fc1.bias": (wide,)}
            keys |= {f"{block}.mlp.fc2.weight": (width, wide), f"{block}.mlp.fc2.bias": (width,)}
        norms = ("final_layer_norm",) if words else ("pre_layrnorm", "post_layernorm")
        for norm in norms:
            keys[f"{at}.{norm}.weight"] = keys[f"{at}.{norm}.bias"] = (width,)
        if words:
            keys[f"{at}.embeddings.token_embedding.weight"] = (words[0], width)
            keys[f"{at}.embeddings.position_embedding.weight"] = (words[1], width)
        else:
            keys[f"{at}.embeddings.class_embedding"] = (width,)
            keys[f"{at}.embeddings.patch_embedding.weight"] = (width, 3, 14, 14)
            keys[f"{at}.embeddings.position_embedding.weight"] = (257, width)
        keys[f"{at}.embeddings.position_ids"] = (1, words[1] if words else 257)
    keys |= {"model.visual_projection.weight": (1024, 1280), "model.text_projection.weight": (1024, 1024)}
    for layer in range(4):
        for name, shape in cross_keys(1024, 16).items():
            keys[f"cross_model.layers.{layer}.{name}"] = shape
    return keys


def test_the_released_checkpoint_fits_by_name_and_shape():
    released = full_size_keys()
    assert len(released) == 1 + 24 * 16 + 5 + 32 * 16 + 8 + 2 + 4 * 13
    state = {key: torch.empty(shape, device="meta") for key, shape in released.items()}
    with torch.device("meta"):
        expected_state = make(mps.configuration(), None).state_dict()
        state = translate(state, 257)
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        key: tuple(value.shape) for key, value in expected_state.items()
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(mps, "configuration", tiny_config)
    monkeypatch.setattr(mps, "clip_tokens", lambda style: tiny_tokens())
    monkeypatch.setattr(mps, "LAYERS", LAYERS)
    monkeypatch.setattr(mps, "HEADS", HEADS)
    state = {key: value.half() if value.is_floating_point() else value for key, value in tiny_state().items()}
    save_file(state, tmp_path / "MPS_overall_checkpoint.safetensors")
    return tmp_path


def test_load_from_a_folder(folder, twin):
    reward = rewards.load("mps", weights=str(folder))
    reward.geometry = Geometry(SIZE)
    assert not any(weight.requires_grad for weight in reward.parameters())
    images = make_images(2).float()
    scores = reward(images, PROMPTS[:2])
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, twin[0](images.double(), PROMPTS[:2]).float(), atol=0.5)
    rounded = {key: value.half() if value.is_floating_point() else value for key, value in twin[1].items()}
    whole = loaded({key: value.float() for key, value in rounded.items() if "position_ids" not in key})
    for layer in range(LAYERS):
        angles = reward.cross.layers[layer][1].angles
        assert torch.equal(angles, translate(rounded, PATCHES)[f"cross.layers.{layer}.1.angles"].float()), (
            "angles as float16 gives them"
        )
        whole.cross.layers[layer][1].angles = angles
    assert torch.allclose(scores, whole(images, PROMPTS[:2]), atol=1e-4)
    low = rewards.load("mps", weights=str(folder), dtype="bfloat16")
    low.geometry = Geometry(SIZE)
    assert low(images, PROMPTS[:2]).dtype == torch.float32
    assert low.cross.layers[0][1].angles.dtype == torch.float32


def test_a_checkpoint_that_is_not_converted_is_refused(folder):
    (folder / "MPS_overall_checkpoint.safetensors").unlink()
    torch.save(torch.nn.Linear(1, 1), folder / "MPS_overall_checkpoint.pth")
    with pytest.raises(ValueError, match="convert_weights"):
        rewards.load("mps", weights=str(folder))
