"""A saved LoRA on a model: which of its layers are there; put in beside others, or folded into weights."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import set_weights_and_activate_adapters
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from t2ialign.models.base import Policy
from t2ialign.models.factors import Factors, Layers, filled
from t2ialign.models.lora_files import Lora, read_lora
from t2ialign.models.lora_names import COMPONENTS

log = logging.getLogger(__name__)

SHOWN = 3
"""The number of layers without a match that are named."""


def load_lora(policy: Policy, path: Path | str, *, weight: float = 1.0) -> None:
    """Add one saved LoRA (a file, or a folder that holds one) to the policy, beside those already loaded.

    weight: how much of it, in the text encoders too; prompts encoded before know nothing of it. Raises
    ValueError if the file is missing or no layer of it is in the model.
    """
    layers = read_for(policy, path)
    name = f"lora_{len(policy.loras)}"
    for component in COMPONENTS:
        prefix = f"{component}."
        module = policy.components.get(component)
        part = {
            _name_in(module, key.removeprefix(prefix)): factors
            for key, factors in layers.items()
            if key.startswith(prefix)
        }
        if part:
            _put_in(module, part, name)
    policy.loras[name] = weight
    for component in COMPONENTS:
        module = policy.components.get(component)
        if module is not None:
            set_weights_and_activate_adapters(module, list(policy.loras), list(policy.loras.values()))
            module.requires_grad_(False)
    policy.forget_prompts()


def apply_lora(policy: Policy, path: Path | str, *, weight: float = 1.0) -> None:
    """Add one saved LoRA for good, as far as the policy is to sample alone, `weight` times.

    It is folded into weights of fp32, after which a step takes as long as the base model's. Rounding to fewer
    bits would lose its small changes, so that there it is put in beside the weights, as `load_lora` does.
    """
    if policy.dtype != torch.float32:
        load_lora(policy, path, weight=weight)
        return
    fold_lora(policy, path, weight=weight)


def fold_lora(policy: Policy, path: Path | str, *, weight: float = 1.0) -> None:
    """Add the changes of one saved LoRA to the policy's weights themselves, `weight` times.

    Raises ValueError as `load_lora` does.
    """
    fold(policy.components, read_for(policy, path), weight=weight)
    policy.forget_prompts()


def read_for(policy: Policy, path: Path | str) -> Layers:
    """The layers of a saved LoRA that the policy's model has too.

    Says how many matched, and warns where it is a part. Raises ValueError if none does.
    """
    return matched(read_lora(path, layout=policy.adapted.config), policy.components)


def matched(lora: Lora, components: Mapping[str, Any]) -> Layers:
    """The layers of a LoRA that a pipeline's components have too, in the shape they have there.

    Says how many matched.

    Raises ValueError if there is none.
    """
    parts = {component: components.get(component) for component in COMPONENTS}
    shapes = {f"{part}.{name}": shape for part in parts for name, shape in _shapes(parts[part])}
    layers, missing = {}, []
    for key, factors in lora.layers.items():
        part, _, path = key.partition(".")
        shape = shapes.get(f"{part}.{_name_in(parts[part], path)}")
        fitting = _reshaped(factors, shape) if shape is not None else None
        if fitting is None:
            missing.append(key)
        else:
            layers[key] = fitting
    count = f"LoRA {lora.file} ({lora.format}): {len(layers)} of {len(lora.layers)} layers matched"
    named = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
    if not layers:
        raise ValueError(f"got {count} (first: {named}); expected a LoRA made for this model")
    if missing:
        log.warning(
            "WARNING: %s; the other %d change nothing, since this model has no such layer of that shape: %s",
            *(count, len(missing), named),
        )
    else:
        log.info("%s", count)
    return layers


@torch.no_grad()
def fold(components: Mapping[str, Any], layers: Mapping[str, Factors], *, weight: float = 1.0) -> None:
    """Add the change of every layer, `weight` times, to the components' own weights, computed in fp32."""
    for key, factors in layers.items():
        component, _, path = key.partition(".")
        module = components[component]
        base = module.get_submodule(_name_in(module, path)).weight
        base.copy_(base.float() + weight * factors.delta.to(base.device))


def _name_in(module: nn.Module | None, path: str) -> str:
    """The name of a layer in the network: newer CLIPs of transformers have no text_model of their own."""
    return path if hasattr(module, "text_model") else path.removeprefix("text_model.")


def _shapes(module: nn.Module | None) -> Iterator[tuple[str, torch.Size]]:
    """The shapes of the linear and convolutional layers by name, with adapters in them or not."""
    for name, part in module.named_modules() if module is not None else ():
        base = getattr(part, "base_layer", part)
        if (
            isinstance(base, nn.Linear | nn.Conv2d)
            and not name.endswith(".base_layer")
            and ".lora_" not in name
        ):
            yield name, base.weight.shape


def _put_in(module: Any, layers: Mapping[str, Factors], name: str) -> None:
    """Add an adapter of these factors to the layers of a network of diffusers or transformers."""
    rank = max(factors.rank for factors in layers.values())
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(layers), init_lora_weights=False)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft draws weights, which are replaced at once, and warns of every second adapter.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(config, module, name)
    for path, factors in layers.items():
        layer = module.get_submodule(path)
        down, up = (part.to(layer.weight) for part in filled(factors, rank))
        layer.lora_A[name].weight.data, layer.lora_B[name].weight.data = down, up


def _reshaped(factors: Factors, shape: torch.Size) -> Factors | None:
    """The factors for a weight of this shape; None if they are for another one.

    A convolution of 1x1 pixels and a linear layer are the same thing, and files have one for the other.
    """
    if factors.shape == tuple(shape):
        return factors
    if factors.shape[:2] != tuple(shape[:2]) or {*factors.shape[2:], *shape[2:]} - {1}:
        return None
    ends = [1] * (len(shape) - 2)
    return Factors(
        factors.down.reshape(*factors.down.shape[:2], *ends), factors.up.reshape(*factors.up.shape[:2], *ends)
    )
