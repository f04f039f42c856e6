"""LoRAs as other programs write them, and what they do to a pipeline, without the project's code."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

UNET_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
MORE_TARGETS = (*UNET_TARGETS, "ff.net.0.proj", "proj_in", "conv1", "downsamplers.0.conv")
TEXT_TARGETS = ("q_proj", "out_proj", "fc1")

SD15: dict[str, Any] = {"cross_attention_dim": 768, "attention_head_dim": 8}
SD21: dict[str, Any] = {
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
SDXL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


class Part(NamedTuple):
    """One layer's factors, down (r, in, ...) and up (out, r, ...), and its alpha."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def delta(self) -> Tensor:
        """alpha / r * up @ down, by the plain product of matrices."""
        flat = self.up.flatten(1).double() @ self.down.flatten(1).double()
        return (self.alpha / len(self.down) * flat).view(len(self.up), *self.down.shape[1:])


def full_size(config: dict[str, Any]) -> UNet2DConditionModel:
    """A released U-Net, on the meta device: no memory."""
    with torch.device("meta"):
        return UNet2DConditionModel(**config)


def networks(pipe: Any) -> Iterator[tuple[str, nn.Module, tuple[str, ...]]]:
    """The parts of a pipeline that a LoRA can change, with what is targeted in them here."""
    yield "unet", pipe.unet, MORE_TARGETS
    for name in ("text_encoder", "text_encoder_2"):
        if getattr(pipe, name, None) is not None:
            yield name, getattr(pipe, name), TEXT_TARGETS


def targeted(module: nn.Module, targets: tuple[str, ...]) -> list[str]:
    """The paths of the layers whose names end so."""
    layers = ((n, m) for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d))
    return [name for name, _ in layers if any(name == t or name.endswith(f".{t}") for t in targets)]


def draw(pipe: Any, *, seed: int = 0, only: str | None = None, mixed: bool = True) -> dict[str, Part]:
    """A LoRA by component and path (text encoders with their text_model), of mixed ranks and alphas."""
    generator, parts = torch.Generator().manual_seed(seed), {}
    for component, module, targets in networks(pipe):
        for i, path in enumerate(targeted(module, targets)):
            layer: Any = module.get_submodule(path)
            out, into, *kernel = layer.weight.shape
            rank = 1 + i % 3 if mixed else 2
            down = torch.randn(rank, into, *kernel, generator=generator) / into**0.5
            up = 0.3 * torch.randn(out, rank, *(1 for _ in kernel), generator=generator)
            if only is None or component == only:
                parts[f"{component}.{stated(component, path)}"] = Part(down, up, (1.0, 4.0, 0.5)[i // 3 % 3])
    return parts


def stated(component: str, path: str) -> str:
    """A layer's path as files have it: with the text_model that newer CLIPs of transformers dropped."""
    if component == "unet" or path.startswith("text_model."):
        return path
    return f"text_model.{path}"


@torch.no_grad()
def fold(pipe: Any, parts: dict[str, Part], weight: float = 1.0) -> Any:
    """Add the LoRA to the pipeline's own weights."""
    for key, part in parts.items():
        component, _, path = key.partition(".")
        module = getattr(pipe, component)
        path = path if hasattr(module, "text_model") else path.removeprefix("text_model.")
        base = module.get_submodule(path).weight
        base.copy_(base.double() + weight * part.delta)
    return pipe


def sgm_names(unet: UNet2DConditionModel) -> dict[str, str]:
    """diffusers' path of every layer -> SGM's, by going through the network as SGM builds it."""
    blocks, number = {"conv_in": "input_blocks.0.0"}, 0
    for i, block in enumerate(unet.down_blocks):
        for j in range(len(block.resnets)):
            number += 1
            blocks[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{number}.0"
            blocks[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{number}.1"
        if block.downsamplers:
            number += 1
            blocks[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
    blocks |= {
        f"mid_block.{a}": f"middle_block.{i}"
        for i, a in enumerate(["resnets.0", "attentions.0", "resnets.1"])
    }
    number = -1
    for i, block in enumerate(unet.up_blocks):
        for j in range(len(block.resnets)):
            number += 1
            blocks[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{number}.0"
            blocks[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{number}.1"
        if block.upsamplers:
            place = 2 if hasattr(block, "attentions") else 1
            blocks[f"up_blocks.{i}.upsamplers.0.conv"] = f"output_blocks.{number}.{place}.conv"
    blocks |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    blocks |= {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
    blocks["conv_out"] = "out.2"
    inner = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1"}
    inner["conv_shortcut"] = "skip_connection"
    names = {}
    for path, module in unet.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            block = next(block for block in blocks if path == block or path.startswith(f"{block}."))
            rest = path.removeprefix(block).removeprefix(".")
            rest = inner.get(rest, rest) if ".resnets." in block else rest
            names[path] = f"{blocks[block]}.{rest}".removesuffix(".")
    return names


def write(kind: str, parts: dict[str, Part], folder: Path, unet: UNet2DConditionModel) -> Path:
    """The LoRA in the format of another program; those without alphas take it as rank, so give them such."""
    folder.mkdir(parents=True, exist_ok=True)
    state, header, names = dict[str, Tensor](), dict[str, str](), sgm_names(unet)
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}
    if any(key.startswith("text_encoder_2.") for key in parts):
        prefixes["text_encoder"] = "lora_te1_"
    for key, part in parts.items():
        component, _, path = key.partition(".")
        ends = ("lora_A.weight", "lora_B.weight")
        if kind in ("kohya", "kohya SGM"):
            path = names[path] if kind == "kohya SGM" and component == "unet" else path
            name, ends = prefixes[component] + path.replace(".", "_"), ("lora_down.weight", "lora_up.weight")
            state[f"{name}.alpha"] = torch.tensor(part.alpha)
        elif kind == "ComfyUI":
            name = f"diffusion_model.{names[path]}"
            state[f"{name}.alpha"] = torch.tensor(part.alpha)
        elif kind == "PEFT":
            name = f"base_model.model.{path}"
        elif kind == "old diffusers":
            name, ends = old_name(component, path)
        else:
            name = key
        state[f"{name}.{ends[0]}"], state[f"{name}.{ends[1]}"] = part.down, part.up
    settings = {
        component: {
            "r": 7,
            "lora_alpha": 9,
            "rank_pattern": {name: len(part.down) for name, part in named},
            "alpha_pattern": {name: part.alpha for name, part in named},
        }
        for component in prefixes
        if (named := [(k.partition(".")[2], p) for k, p in parts.items() if k.startswith(f"{component}.")])
    }
    if kind == "diffusers":
        flat = {f"{part}.{name}": value for part, known in settings.items() for name, value in known.items()}
        header["lora_adapter_metadata"] = json.dumps(flat)
    if kind == "PEFT":
        (folder / "adapter_config.json").write_text(json.dumps(settings["unet"]))
    file = folder / (
        "adapter_model.safetensors" if kind == "PEFT" else f"{kind.replace(' ', '_')}.safetensors"
    )
    save_file(state, file, metadata=header)
    return file


def old_name(component: str, path: str) -> tuple[str, tuple[str, str]]:
    """A layer's name and the ends of its two keys before diffusers used peft."""
    head, _, last = path.rpartition(".attn1.to_") if ".attn1.to_" in path else path.rpartition(".attn2.to_")
    if head:
        middle = path[len(head) : -len(last) - len(".to_")]
        name = f"unet.{head}{middle}.processor.to_{last.removesuffix('.0')}_lora"
        return name, ("down.weight", "up.weight")
    if component == "unet":
        return f"unet.{path}", ("lora.down.weight", "lora.up.weight")
    return f"{component}.{path}", ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight")
