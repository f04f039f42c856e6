"""The LoRA of a policy as files: diffusers' own, and the one for ComfyUI, A1111 and Forge; and read back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from t2ialign.models import lora_family
from t2ialign.models.base import Policy
from t2ialign.models.factors import Factors
from t2ialign.models.lora import ADAPTER, adapters
from t2ialign.models.lora_apply import SHOWN, matched
from t2ialign.models.lora_files import FILE, read_lora, write_diffusers, write_kohya


def save_lora(policy: Policy, folder: Path | str, *, title: str = "LoRA") -> Path:
    """Write the LoRA as the file that `pipe.load_lora_weights(folder)` loads, whole or not at all -> its
    path.

    Its alpha is its rank and the weights are scaled to fit, so that readers need no header. Raises ValueError
    if there is no LoRA, OSError if the file cannot be written.
    """
    if ADAPTER not in adapters(policy):
        raise ValueError("got a policy without a LoRA; expected one; call add_lora first or save_all")
    layers = {}
    for key, module in _trained(policy):
        down, up = (part[ADAPTER].weight.detach().float() for part in (module.lora_A, module.lora_B))
        layers[key] = Factors(down, module.scaling[ADAPTER] * up)
    return write_diffusers(layers, Path(folder) / FILE, header_of(policy, title))


@torch.no_grad()
def start_from(policy: Policy, path: Path | str) -> None:
    """Give the policy's trainable LoRA the weights of a saved one: a file of any known format, or a folder.

    Raises ValueError for a missing file, and for a LoRA of another rank or on other layers.
    """
    lora, modules = read_lora(path, layout=policy.adapted.config), dict(_trained(policy))
    if differing := sorted(lora.layers.keys() ^ modules.keys()):
        named = ", ".join(differing[:SHOWN]) + (", ..." if len(differing) > SHOWN else "")
        raise ValueError(
            f"got init_lora={path} with {len(lora.layers)} layers for a run that trains {len(modules)} (only "
            f"one of them has {named}); expected the same layers; set lora_targets as that LoRA has them"
        )
    rank = len(next(iter(modules.values())).lora_A[ADAPTER].weight)
    if other := {factors.rank for factors in lora.layers.values()} - {rank}:
        raise ValueError(
            f"got init_lora={path} of rank {max(other)}; expected {rank}, as of this run; set "
            f"lora_rank={max(other)}"
        )
    layers = matched(lora, policy.components)
    if len(layers) < len(modules):
        raise ValueError(f"got init_lora={path}, made for another model; expected one for {policy.source}")
    for key, module in modules.items():
        module.lora_A[ADAPTER].weight.copy_(layers[key].down)
        module.lora_B[ADAPTER].weight.copy_(layers[key].up / module.scaling[ADAPTER])


def _trained(policy: Policy) -> Iterator[tuple[str, Any]]:
    """The layers of the network that have the trainable LoRA, by their keys."""
    for path, module in policy.adapted.named_modules():
        if ADAPTER in getattr(module, "lora_A", {}):
            yield f"{policy.component}.{path}", module


def save_kohya(policy: Policy, lora: Path, file: Path) -> Path:
    """Write a saved LoRA of this policy as ComfyUI, A1111 and Forge load it -> the file.

    Raises ValueError for a family whose layers have no name there, OSError if the file cannot be written.
    """
    architecture = lora_family.of_policy(policy)
    if architecture is None:
        raise ValueError(
            f"got a LoRA of the family {policy.family}; expected one of Stable Diffusion 1, 2 or XL, "
            "whose layers have names in that format; use the file for diffusers"
        )
    layout = policy.adapted.config
    layers = read_lora(lora, layout=layout).layers
    return write_kohya(layers, file, header_of(policy, file.stem), architecture=architecture, layout=layout)


def header_of(policy: Policy, title: str, *, adapter: str = "/lora") -> dict[str, str]:
    """The header entries on the base model of a LoRA for this policy; adapter: "" for a whole model."""
    architecture = lora_family.of_policy(policy) or lora_family.of_flow(policy)
    prediction = {"eps": "epsilon", "v": "v"}.get(policy.kind)
    about = (
        {lora_family.TITLE: title}
        if architecture is None
        else lora_family.header(architecture, title=title, prediction=prediction, adapter=adapter)
    )
    return {**about, **lora_family.reading_header(policy.options)}
