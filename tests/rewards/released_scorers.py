"""Scorers under the names of their releases: real classes and image sizes, few layers of narrow networks.

`write` fills a folder that $T2IALIGN_WEIGHTS may name, so that `rewards.load("pickscore")` finds its files
where those of the release would lie; `narrow` replaces the sizes of networks that no file states.
"""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from transformers import BlipTextConfig, BlipVisionConfig, CLIPConfig, CLIPModel, Qwen2VLModel

from rewards.latent.saved import save
from rewards.latent.untrained import from_pipeline
from rewards.scorers import image_reward, mps
from rewards.scorers.hpsv3 import HPSv3
from rewards.scorers.rubric import RUBRIC
from tests.rewards import tiny_clip, tiny_vlm
from tests.rewards.scorers import test_hpsv3, test_image_reward, test_mps

CLIPS = {
    "openai/clip-vit-base-patch32": 32,
    "openai/clip-vit-large-patch14": 14,
    "yuvalkirstain/PickScore_v1": 14,
}
"""Repository -> pixels of a patch; all read 224 x 224 pixels."""
VLM = "llava-hf/llava-1.5-7b-hf"
RUBRIC_FILE, HEAD, CONTRASTS, LATENT = "rubric.txt", "head.safetensors", "contrasts.json", "latent"
PROMPTS = ("a red circle", "a blue square")
WIDTH, LAYERS, HEADS = 32, 2, 2


def write(root: Path, pipeline: Path) -> None:
    """All files of random weights; `pipeline` is the image model whose latents the latent reward judges."""
    torch.manual_seed(0)
    for repository, patch in CLIPS.items():
        model = tiny_clip.random_model(size=224, patch=patch)
        tiny_clip.save_folder(model, root / repository)
    save_file({"weight": torch.randn(1, tiny_clip.DIM), "bias": torch.ones(1)}, root / HEAD)
    _write_hpsv2(root / "xswu/HPSv2")
    _write_mps(root / "Kwai-Kolors/MPS")
    _write_image_reward(root)
    _write_hpsv3(root)
    _write_vlm(root / VLM)
    judge = from_pipeline(pipeline, guidance_scale=1)
    with torch.no_grad():
        judge.log_scale.add_(2.0)  # untrained states then differ
    save(judge, root / LATENT)
    contrasts = {prompt: ["a green circle", "a red square"] for prompt in PROMPTS}
    (root / CONTRASTS).write_text(json.dumps(contrasts), encoding="utf-8")


def narrow(patch: pytest.MonkeyPatch, root: Path) -> None:
    """Weights are looked for in `root`, and sizes that code states are narrow."""
    patch.setenv("T2IALIGN_WEIGHTS", str(root))
    patch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-H-14", tiny_clip.open_clip_config(False, 224, 14))
    patch.setattr(mps, "configuration", _mps_config)
    patch.setattr(mps, "LAYERS", LAYERS)
    patch.setattr(mps, "HEADS", HEADS)
    patch.setattr(image_reward, "configurations", _image_reward_configs)


def _write_hpsv2(folder: Path) -> None:
    folder.mkdir(parents=True)
    model = open_clip.CLIP(**tiny_clip.open_clip_config(False, 224, 14))
    torch.save({"state_dict": model.state_dict()}, folder / "HPS_v2.1_compressed.pt")


def _mps_config() -> CLIPConfig:
    return tiny_clip.config(act="gelu", size=224, patch=14)


def _write_mps(folder: Path) -> None:
    folder.mkdir(parents=True)
    config = _mps_config()
    state = {f"model.{name}": value for name, value in CLIPModel(config).state_dict().items()}
    for layer in range(LAYERS):
        for name, shape in test_mps.cross_keys(config.projection_dim, HEADS).items():
            norm = name.endswith("norm.weight")
            state[f"cross_model.layers.{layer}.{name}"] = 0.1 * torch.randn(shape) + (1.0 if norm else 0.0)
        state[f"cross_model.layers.{layer}.1.fn.rotary_emb.inv_freq"] = test_mps.frequencies(torch.float32)
    state = {name: value.contiguous() for name, value in state.items() if "position_ids" not in name}
    save_file(state, folder / "MPS_overall_checkpoint.safetensors")


def _image_reward_configs() -> tuple[BlipVisionConfig, BlipTextConfig]:
    size = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS}
    size["num_attention_heads"] = HEADS
    text = BlipTextConfig(
        **size,
        vocab_size=len(test_image_reward.WORDS) + 2,
        encoder_hidden_size=WIDTH,
        max_position_embeddings=64,
        layer_norm_eps=1e-12,
        is_decoder=True,
    )
    return BlipVisionConfig(**size, image_size=224, patch_size=16, layer_norm_eps=1e-6), text


def _write_image_reward(root: Path) -> None:
    folder, vocabulary = root / image_reward.HUB, root / image_reward.VOCABULARY
    folder.mkdir(parents=True)
    vocabulary.mkdir(parents=True)
    words = "\n".join(test_image_reward.WORDS) + "\n"
    (vocabulary / image_reward.VOCABULARY_FILE).write_text(words, encoding="utf-8")
    count = len(test_image_reward.WORDS) + 2
    keys: dict[str, tuple[int, ...]] = {
        **test_image_reward.vision_keys(WIDTH, LAYERS, 224, 16),
        **test_image_reward.text_keys(count, WIDTH, 4 * WIDTH, LAYERS, WIDTH, 64),
        **test_image_reward.other_keys(WIDTH, WIDTH),
    }
    state = {name: _random(name, shape) for name, shape in keys.items()}
    torch.save(state, folder / image_reward.FILE)


def _random(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A weight of variance 1 / its inputs, so that no layer grows what it reads; a norm's is near 1."""
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "LayerNorm.weight")):
        return 1 + 0.1 * torch.randn(shape)
    return torch.randn(shape) / max(1, torch.Size(shape[1:]).numel()) ** 0.5


def _write_hpsv3(root: Path) -> None:
    """The tokenizer and configuration of the base, the scorer's weights, and the rubric it was trained on."""
    base, folder = root / "Qwen/Qwen2-VL-7B-Instruct", root / "MizzenAI/HPSv3"
    folder.mkdir(parents=True)
    config = test_hpsv3.tiny_config()
    test_hpsv3.words().save_pretrained(base)
    config.save_pretrained(base)
    scorer = HPSv3(Qwen2VLModel(config), test_hpsv3.words(), rubric=RUBRIC)
    save_file(test_hpsv3.released(scorer, "old"), folder / "HPSv3.safetensors")
    (root / RUBRIC_FILE).write_text(RUBRIC, encoding="utf-8")


def _write_vlm(folder: Path) -> None:
    """LLaVA 1.5's image encoder reads 336 x 336 pixels in patches of 14: 576 image tokens."""
    tiny_vlm.build_llava(folder, size=336)
