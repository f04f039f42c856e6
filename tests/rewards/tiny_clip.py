"""CLIPs of the real classes with random weights and few of them, and what their published files hold."""

from collections.abc import Iterator
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from rewards.towers.clip_towers import OpenClip, TransformersClip
from rewards.towers.tokens import clip_tokens

WIDTH, HEADS, LAYERS, DIM = 32, 4, 2, 24
TOKENS = clip_tokens()


def config(act: str = "quick_gelu", size: int = 32, patch: int = 8) -> CLIPConfig:
    """CLIP's vocabulary and text length, everything else tiny."""
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_act": act,
    }
    return CLIPConfig(
        text_config={
            **tower,
            "vocab_size": 49408,
            "max_position_embeddings": 77,
            "eos_token_id": 49407,
            "bos_token_id": 49406,
        },
        vision_config={**tower, "image_size": size, "patch_size": patch},
        projection_dim=DIM,
    )


def random_model(seed: int = 0, **options) -> CLIPModel:
    """A transformers CLIP whose weights are large enough that images and prompts differ."""
    torch.manual_seed(seed)
    model = CLIPModel(config(**options)).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(std=0.3 if "embedding" in name else 2 / weight[0].numel() ** 0.5)
        elif name.endswith("bias"):
            weight.normal_(std=0.1)
    model.logit_scale.fill_(2.5)
    return model


def tower(seed: int = 0, **options) -> TransformersClip:
    """A frozen tower around `random_model`."""
    return TransformersClip(random_model(seed, **options), TOKENS)


def open_clip_config(quick: bool, size: int = 32, patch: int = 8) -> dict:
    """The same shape in open_clip's words."""
    return {
        "embed_dim": DIM,
        "quick_gelu": quick,
        "vision_cfg": {
            "image_size": size,
            "layers": LAYERS,
            "width": WIDTH,
            "head_width": WIDTH // HEADS,
            "patch_size": patch,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": WIDTH,
            "heads": HEADS,
            "layers": LAYERS,
        },
    }


def open_clip_tower(state: dict[str, Tensor], quick: bool, **options) -> OpenClip:
    """A frozen open_clip tower with these weights."""
    model = open_clip.CLIP(**open_clip_config(quick, **options)).eval()
    model.load_state_dict(state)
    return OpenClip(model.requires_grad_(False), TOKENS)


def to_open_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a transformers CLIP under open_clip's names."""
    converted = {
        "logit_scale": state["logit_scale"],
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "text_projection": state["text_projection.weight"].T.contiguous(),
        "visual.proj": state["visual_projection.weight"].T.contiguous(),
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
    }
    norms = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    for kind in ("weight", "bias"):
        converted |= {f"{ours}.{kind}": state[f"{theirs}.{kind}"] for ours, theirs in norms.items()}
        for ours, theirs in (("transformer", "text_model"), ("visual.transformer", "vision_model")):
            for layer in range(LAYERS):
                there, here = f"{theirs}.encoder.layers.{layer}", f"{ours}.resblocks.{layer}"
                parts = [state[f"{there}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                converted[f"{here}.attn.in_proj_{kind}"] = torch.cat(parts)
                for one, other in BLOCK.items():
                    converted[f"{here}.{one}.{kind}"] = state[f"{there}.{other}.{kind}"]
    return converted


BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def save_folder(model: CLIPModel, folder: Path) -> Path:
    """As the Hub has it: config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors"
    )
    return folder


def open_clip_keys(vision: int, text: int) -> Iterator[str]:
    """Every key of an open_clip ViT checkpoint (HPSv2's too) with that many layers."""
    yield from ("logit_scale", "positional_embedding", "text_projection", "token_embedding.weight")
    yield from ("visual.class_embedding", "visual.positional_embedding", "visual.proj", "visual.conv1.weight")
    yield from (
        f"{n}.{k}" for n in ("ln_final", "visual.ln_pre", "visual.ln_post") for k in ("weight", "bias")
    )
    for prefix, layers in (("transformer", text), ("visual.transformer", vision)):
        for layer in range(layers):
            block = f"{prefix}.resblocks.{layer}"
            yield from (f"{block}.attn.in_proj_{kind}" for kind in ("weight", "bias"))
            yield from (f"{block}.{part}.{kind}" for part in BLOCK for kind in ("weight", "bias"))


def transformers_keys(vision: int, text: int) -> Iterator[str]:
    """Every key of a transformers CLIP checkpoint (PickScore's too) with that many layers."""
    yield from ("logit_scale", "text_projection.weight", "visual_projection.weight")
    yield from (f"text_model.embeddings.{n}.weight" for n in ("token_embedding", "position_embedding"))
    yield from (f"vision_model.embeddings.{n}.weight" for n in ("patch_embedding", "position_embedding"))
    yield "vision_model.embeddings.class_embedding"
    norms = ("text_model.final_layer_norm", "vision_model.pre_layrnorm", "vision_model.post_layernorm")
    yield from (f"{name}.{kind}" for name in norms for kind in ("weight", "bias"))
    parts = (*BLOCK.values(), *(f"self_attn.{part}_proj" for part in "qkv"))
    for prefix, layers in (("text_model", text), ("vision_model", vision)):
        for layer in range(layers):
            block = f"{prefix}.encoder.layers.{layer}"
            yield from (f"{block}.{part}.{kind}" for part in parts for kind in ("weight", "bias"))


def counts(tower, what: str) -> list[int]:
    """Rows of each forward of the tower's "image" or "text" encoder from now on, by a hook."""
    rows: list[int] = []
    model = tower.model
    if isinstance(tower, OpenClip):
        part = model.visual if what == "image" else model.transformer
    else:
        part = model.vision_model if what == "image" else model.text_model

    def hook(module, args, kwargs):
        given = args[0] if args else next(iter(kwargs.values()))
        rows.append(len(given))

    part.register_forward_pre_hook(hook, with_kwargs=True)
    return rows
