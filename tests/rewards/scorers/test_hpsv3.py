"""HPSv3 against the authors' forward and transformers' own processor, on a tiny random Qwen2-VL."""

import hashlib
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLModel,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

import rewards
from rewards.preprocess import CLIP_STD
from rewards.scorers import hpsv3, rubric
from rewards.scorers.hpsv3 import HPSv3, fitted, patches, translate
from rewards.scorers.rubric import RUBRIC, TOKEN, published, read_rubric
from tests.rewards.tiny_vlm import language, tokenizer

PIXELS = 4 * 28 * 28
PROMPTS = ["a red circle", "Does this figure show a blue square or no square ?"]
TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}<|im_start|>system\nYou are a helpful assistant."
    "<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""What Qwen2-VL's own template writes for one turn of the user."""
ENDED = RUBRIC + "\n\nEND\n"
"""The authors' text goes on after the reward token."""


def words():
    return tokenizer("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def tiny_config():
    tokens = words()
    ids = {name: tokens.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    return Qwen2VLConfig(
        text_config={
            **language(len(tokens) + 1),
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            "bos_token_id": 3,
            "eos_token_id": 2,
        },
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2},
        image_token_id=tokens.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokens.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )


@pytest.fixture(scope="module")
def twin():
    torch.manual_seed(0)
    reward = HPSv3(Qwen2VLModel(tiny_config()), words(), rubric=ENDED, pixels=PIXELS)
    return reward.eval().requires_grad_(False)


def make_image(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def processed(reward, images, prompts):
    """The authors' inference.py: resize with PIL, the processor for the rest, and a chat of one turn each."""
    sizes = [smart_resize(p.height, p.width, min_pixels=PIXELS, max_pixels=PIXELS) for p in images]
    resized = [
        p.resize((width, height), Image.BICUBIC) for p, (height, width) in zip(images, sizes, strict=True)
    ]
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 1280}),
        reward.tokenizer,
        Qwen2VLVideoProcessor(),
        chat_template=TEMPLATE,
    )
    turns = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        for text in (reward.rubric.replace("{text_prompt}", prompt) for prompt in prompts)
    ]
    texts = [
        processor.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns
    ]
    return processor(text=texts, images=resized, padding=True, padding_side="right", return_tensors="pt")


@torch.no_grad()
def authors_distribution(reward, images, prompts):
    """qwen2vl_trainer.py: image features among the text's embeddings, no positions, the head everywhere."""
    model = Qwen2VLModel(reward.backbone.config).eval()
    model.load_state_dict(reward.backbone.state_dict())
    batch = processed(reward, images, prompts)
    embedded = model.language_model.embed_tokens(batch.input_ids)
    features = model.visual(batch.pixel_values, grid_thw=batch.image_grid_thw).pooler_output
    image = (batch.input_ids == model.config.image_token_id)[..., None].expand_as(embedded)
    embedded = embedded.masked_scatter(image, features)
    hidden = model(inputs_embeds=embedded, attention_mask=batch.attention_mask).last_hidden_state
    weights = reward.head.state_dict()
    for layer in (0, 3, 5):
        hidden = torch.nn.functional.linear(hidden, weights[f"{layer}.weight"], weights[f"{layer}.bias"])
        hidden = hidden.relu() if layer < 5 else hidden
    at = batch.input_ids == reward.tokenizer.convert_tokens_to_ids("<|Reward|>")
    return hidden[at].view(len(prompts), 2)


@pytest.mark.parametrize("size", [(40, 40), (200, 90), (30, 91), (56, 56)])
def test_the_score_is_the_authors(twin, size):
    images = [make_image(*size, seed) for seed in range(2)]
    expected = authors_distribution(twin, images, PROMPTS)
    scores = twin.reference(images, PROMPTS)
    assert torch.allclose(scores, expected[:, 0], atol=1e-5)
    assert expected.std(0).min() > 1e-3, "a scorer that says the same to everything would pass"


def test_the_tensor_path_is_near_the_images(twin):
    """Only PIL's rounding to 1/255 is between them; none where nothing is resized."""
    images = [make_image(64, 70), make_image(56, 56)]
    for image in images:
        mean, spread = twin.distribution(tensor(image), PROMPTS[:1])[0]
        far = (twin.reference([image], PROMPTS[:1])[0] - mean).abs()
        assert far < (0.05 if image.width == 70 else 1e-5)
        assert twin(tensor(image), PROMPTS[:1])[0] == mean
        assert spread != mean


@pytest.mark.parametrize("size", [(301, 448), (64, 70), (333, 900)])
def test_overshoot_is_clipped_where_pil_clips_it(twin, size):
    """Noise, enlarged and made smaller: one resize in both directions at once is off by many grey levels.

    Wide images: Pillow 13 resizes some tall ones along columns first, where earlier ones never did.
    """
    image = make_image(*size, seed=3)
    std = torch.tensor(CLIP_STD).view(3, 1, 1)
    reward = HPSv3(twin.backbone, words())
    apart = (reward._resized(tensor(image)) - reward._resized_image(image)) * std * 255
    assert 0 < apart.abs().max() < 2


def test_positions_run_through_the_image(twin):
    """Qwen2-VL's own positions (by row and column) would give another score."""
    images = [make_image(112, 56)] * 2
    batch = processed(twin, images, PROMPTS)
    with torch.no_grad():
        hidden = twin.backbone(
            **{key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")},
            mm_token_type_ids=batch.mm_token_type_ids,
        ).last_hidden_state
    twin.backbone.rope_deltas = None
    at = batch.input_ids == twin.tokenizer.convert_tokens_to_ids(TOKEN)
    other = twin.head(hidden[at])[:, 0]
    assert (other - twin.reference(images, PROMPTS)).abs().min() > 1e-4


def test_a_score_does_not_depend_on_the_batch(twin):
    images = torch.rand(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    prompts = [*PROMPTS, "no"]
    alone = torch.cat([twin(images[i : i + 1], [prompts[i]]) for i in range(3)])
    assert alone.shape == (3,)
    assert torch.allclose(twin(images, prompts), alone, atol=1e-5)


def test_a_table_encodes_each_image_once(twin):
    images, candidates, seen = torch.rand(2, 3, 56, 56), [PROMPTS, ["no"] * 9], []
    handle = twin.backbone.visual.register_forward_hook(lambda *_: seen.append(1))
    table = twin.table(images, candidates)
    handle.remove()
    assert seen == [1]
    for image, prompts, scores in zip(images, candidates, table, strict=True):
        single = [twin(image[None], [prompt]).item() for prompt in prompts]
        assert scores.tolist() == pytest.approx(single, abs=1e-5)


def test_patches_are_those_of_the_processor(twin):
    image = make_image(112, 28)  # of the size that it would be brought to
    batch = processed(twin, [image], PROMPTS[:1])
    assert torch.allclose(patches(twin._resized(tensor(image)), 14, 2, 2), batch.pixel_values, atol=1e-5)
    assert batch.image_grid_thw.tolist() == [[1, 8, 2]]


def test_sizes_are_qwens():
    for height, width in [(512, 512), (1024, 1024), (768, 1344), (28, 28), (1, 199), (333, 17), (448, 448)]:
        size = fitted(height, width, 28, hpsv3.PIXELS)
        assert size == smart_resize_of_the_authors(height, width), (height, width)
    assert fitted(512, 512, 28, hpsv3.PIXELS) == (448, 448)
    assert hpsv3.PIXELS == 200_704
    with pytest.raises(ValueError, match="aspect"):
        fitted(1, 201, 28, hpsv3.PIXELS)


def smart_resize_of_the_authors(height, width):
    """transformers' refuses sides below 28, which the authors' copy of the rule first rounds up."""
    if min(height, width) < 28:
        area = 200_704 / (height * width)
        return tuple(int(np.ceil(side * area**0.5 / 28)) * 28 for side in (height, width))
    return smart_resize(height, width, min_pixels=200_704, max_pixels=200_704)


def test_the_gradient_of_the_image_is_the_slope(twin):
    """Norms and rotations inside compute in float32 even here, which sets the step and what can be asked."""
    reward = HPSv3(Qwen2VLModel(tiny_config()), words(), pixels=PIXELS)
    reward.load_state_dict(twin.state_dict())
    reward.eval().double()
    images = (0.3 + 0.4 * torch.rand(2, 3, 60, 60, generator=torch.Generator().manual_seed(0))).double()
    images.requires_grad_()
    (slope,) = torch.autograd.grad(reward(images, PROMPTS).sum(), images)
    step = 3e-5 * slope / slope.norm()
    with torch.no_grad():
        rise = (reward(images + step, PROMPTS) - reward(images - step, PROMPTS)).sum() / 2
    assert rise.item() == pytest.approx((slope * step).sum().item(), rel=1e-3)
    assert slope.abs().amax((1, 2, 3)).min() > 0, "both images get a gradient"


@pytest.mark.parametrize("token", [TOKEN, "<|image_pad|>", "<|end|>"])
def test_a_prompt_with_a_special_token_is_refused(twin, token):
    with pytest.raises(ValueError, match="special token"):
        twin(torch.rand(1, 3, 56, 56), [f"a cat {token}"])


def test_braces_in_a_prompt_are_plain_text(twin):
    images = torch.rand(1, 3, 56, 56)
    assert torch.isfinite(twin(images, ["{text_prompt} {0} {"])).all()


SCRIPT = '''raise SystemExit("this file is read, never run")
INSTRUCTION = """
Rate it. {text_prompt}
"""
prompt_with_special_token = """
The rating: <|Reward|>
END
"""
'''
AS_TEXT = "\nRate it. {text_prompt}\n\nThe rating: <|Reward|>\nEND\n"


def test_the_rubric_is_read_from_a_file(tmp_path):
    (tmp_path / "rubric.txt").write_text(AS_TEXT, encoding="utf-8")
    (tmp_path / "data_collator_qwen.py").write_text(SCRIPT, encoding="utf-8")
    assert read_rubric(tmp_path / "rubric.txt") == AS_TEXT
    assert read_rubric(str(tmp_path / "data_collator_qwen.py")) == AS_TEXT


@pytest.mark.parametrize(
    "text", ["no prompt <|Reward|>", "{text_prompt}", "{text_prompt} <|Reward|><|Reward|>"]
)
def test_another_text_is_refused(tmp_path, text):
    (tmp_path / "rubric.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="expected a text with"):
        read_rubric(tmp_path / "rubric.txt")


def test_code_without_the_texts_is_refused(tmp_path):
    (tmp_path / "other.py").write_text("INSTRUCTION = 'a'\n", encoding="utf-8")
    with pytest.raises(ValueError, match="prompt_with_special_token"):
        read_rubric(tmp_path / "other.py")
    with pytest.raises(ValueError, match="pass rubric="):
        read_rubric(None)


def test_our_own_rubric_is_not_the_published_one():
    assert not published(RUBRIC)
    assert RUBRIC.count(TOKEN) == RUBRIC.count("{text_prompt}") == 1


def released(reward, layout):
    """The state dict of a checkpoint: Qwen2-VL's names of old or new transformers, its lm_head, the head."""
    weights = reward.state_dict()
    state = {"lm_head.weight": weights["backbone.language_model.embed_tokens.weight"].clone()}
    for key, value in weights.items():
        key = key.replace("head.", "rm_head.") if key.startswith("head.") else key
        key = key.replace("backbone.", "model.")
        if layout == "old":
            key = key.replace("model.visual.", "visual.").replace("model.language_model.", "model.")
        state[key] = value.to(torch.float32 if key.startswith("rm_head") else torch.bfloat16)
    return state


@pytest.fixture
def folder(tmp_path):
    """A folder as `base` of the Hub is: the configuration in the flat form of its time, and the tokenizer."""
    config = tiny_config().to_dict()
    flat = {**config.pop("text_config"), **config}
    flat.pop("text_config", None)
    flat["rope_scaling"] = {"type": "mrope", "mrope_section": [1, 1, 2]}
    flat["rope_theta"] = 10000.0
    for key in ("rope_parameters", "layer_types", "dtype"):
        flat.pop(key, None)
    flat["vocab_size"] += 100
    flat["model_type"] = "qwen2_vl"
    words().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(flat), encoding="utf-8")
    (tmp_path / "rubric.txt").write_text(ENDED, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("layout", ["old", "new"])
def test_load_from_a_folder(folder, twin, layout, caplog):
    save_file(released(twin, layout), folder / "HPSv3.safetensors")
    options = {"weights": str(folder), "base": str(folder), "rubric": str(folder / "rubric.txt")}
    with caplog.at_level(logging.WARNING):
        reward = rewards.load("hpsv3", **options, dtype="float32")
    assert "not the published" in caplog.text
    assert not any(weight.requires_grad for weight in reward.parameters())
    reward.pixels = PIXELS
    rounded = HPSv3(Qwen2VLModel(tiny_config()), words(), rubric=ENDED, pixels=PIXELS).eval()
    rounded.load_state_dict(twin.state_dict())
    rounded.backbone.bfloat16().float()
    images = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(reward(images, PROMPTS), rounded(images, PROMPTS), atol=1e-5)
    for part in (reward.backbone.language_model.rotary_emb, reward.backbone.visual.rotary_pos_emb):
        assert torch.equal(part.inv_freq, part.inv_freq.bfloat16().float())
    exact = twin.backbone.language_model.rotary_emb.inv_freq
    assert not torch.equal(reward.backbone.language_model.rotary_emb.inv_freq, exact)
    low = rewards.load("hpsv3", **options)
    low.pixels = PIXELS
    assert next(low.backbone.parameters()).dtype == torch.bfloat16
    assert low(images, PROMPTS).dtype == torch.float32, "the head stays at float32"


def test_the_published_rubric_gives_no_warning(folder, twin, monkeypatch, caplog):
    save_file(released(twin, "old"), folder / "HPSv3.safetensors")
    monkeypatch.setattr(rubric, "PUBLISHED", hashlib.sha256(ENDED.encode()).hexdigest())
    with caplog.at_level(logging.WARNING):
        rewards.load(
            "hpsv3", weights=str(folder), base=str(folder), rubric=str(folder / "rubric.txt"), dtype="float32"
        )
    assert "rubric" not in caplog.text


def test_another_checkpoint_or_no_rubric_is_refused(folder, twin):
    state = released(twin, "old")
    save_file(state, folder / "HPSv3.safetensors")
    with pytest.raises(ValueError, match="rubric="):
        rewards.load("hpsv3", weights=str(folder), base=str(folder))
    for change in ("model.norm.weight", "rm_head.0.bias"):
        save_file({k: v for k, v in state.items() if k != change}, folder / "HPSv3.safetensors")
        with pytest.raises(ValueError, match="lacks 1 weights"):
            rewards.load("hpsv3", weights=str(folder), base=str(folder), rubric=str(folder / "rubric.txt"))


def test_the_released_checkpoint_fits_by_name():
    """736 names of the released file: Qwen2-VL-7B (28 layers on 32 of vision) in transformers of its time."""
    keys = [
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        "visual.patch_embed.proj.weight",
    ]
    for layer in range(28):
        at = f"model.layers.{layer}"
        keys += [f"{at}.self_attn.{p}_proj.{w}" for p in "qkv" for w in ("weight", "bias")]
        keys += [
            f"{at}.self_attn.o_proj.weight",
            *(f"{at}.mlp.{p}_proj.weight" for p in ("gate", "up", "down")),
        ]
        keys += [f"{at}.input_layernorm.weight", f"{at}.post_attention_layernorm.weight"]
    parts = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    blocks = [f"visual.blocks.{layer}.{part}" for layer in range(32) for part in parts]
    merger = [f"visual.merger.{part}" for part in ("ln_q", "mlp.0", "mlp.2")]
    heads = [f"rm_head.{place}" for place in (0, 3, 5)]
    keys += [f"{at}.{w}" for at in (*blocks, *merger, *heads) for w in ("weight", "bias")]
    assert len(keys) == len(set(keys)) == 4 + 28 * 12 + 32 * 12 + 6 + 6
    with torch.device("meta"):
        backbone = Qwen2VLModel(
            Qwen2VLConfig(
                text_config={"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28},
                vision_config={"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "num_heads": 16},
            )
        )
        names = translate({key: torch.empty(0) for key in keys})
    heads = {f"head.{place}.{w}" for place in (0, 3, 5) for w in ("weight", "bias")}
    assert names.keys() == backbone.state_dict().keys() | heads
