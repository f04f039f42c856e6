"""How to use what a run wrote, as its model card shows it: in diffusers, ComfyUI, A1111 and Forge, or Python.

A card goes where its reader has no file of the machine that wrote it: the folder has its name only, and a
base model its name on the Hub, or none.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rewards.weights import HUB_ID
from t2ialign.io.messages import marked
from t2ialign.models.lora_files import FILE
from t2ialign.models.sources import is_path

BASE = "BASE"
"""Stands for a base model that only the machine of the run has."""

LORA = """In diffusers, with the scheduler whose steps the run took:

```python
from diffusers import {imports}

pipe = DiffusionPipeline.from_pretrained("{base}"{read}){note}
{scheduler}pipe.load_lora_weights("{folder}", weight_name="{file}")  # this folder
image = pipe("a prompt", num_inference_steps=20, guidance_scale=5.0{skip}).images[0]
```{clipped}{caution}"""

CLIPPED = """

`clip_sample=False` is needed: a DDIM scheduler made of a PNDM config clips latents as if they were
pixels."""

CLIP_SKIP = """

`clip_skip` is as in training. For Stable Diffusion 1 and 2, diffusers 0.42 fails on it beside transformers
5.24; `t2ialign sample --clip-skip {clip_skip}` does not."""

UIS = """In ComfyUI: put `{file}` into `ComfyUI/models/loras`, and the node *Load LoRA* between
*Load Checkpoint* and *KSampler*, with `strength_model` 1.

In A1111 and Forge: put the same file into `models/Lora`, and write `<lora:{stem}:1>` in the prompt."""

CONVERT = """In ComfyUI, A1111 and Forge, once it is in the format that they load:

```bash
t2ialign export {quoted} --format kohya -o {file}
```

Put the file into `ComfyUI/models/loras` for the node *Load LoRA*, or into `models/Lora` for
`<lora:{folder}_kohya:1>` in the prompt."""

ALL = """```python
from diffusers import {imports}, {save_class}

{component} = {save_class}.from_pretrained("{folder}", subfolder="{component}")  # this folder
pipe = DiffusionPipeline.from_pretrained("{base}", {component}={component}{read}){note}
{scheduler}image = pipe("a prompt", num_inference_steps=20, guidance_scale=5.0{skip}).images[0]
```{caution}"""

SCORER = """```python
import rewards

reward = rewards.load("{name}", weights="{folder}")  # this folder
```"""

LATENT = """```python
import rewards

reward = rewards.load("latent", path="{folder}")  # this folder
scores = reward.score(latents, t, prompts)  # (B, C, h, w), (B,) and B texts -> (B,)
```"""


def hub_id(model: str) -> str | None:
    """The model's name on the Hub; None for the toy model, a file or a folder."""
    return model if HUB_ID.fullmatch(model) and not is_path(model) else None


def shown(model: str) -> str:
    """The name of the model in a card: as on the Hub, or its last part."""
    return hub_id(model) or marked(Path(model).name)


def lora(model: str, folder: Path, *, kohya: Path | None, settings: Mapping[str, Any] | None = None) -> str:
    """How to load the LoRA in `folder`; kohya: its file for ComfyUI, A1111 and Forge, if there is one.

    settings: how the base model was read, its scheduler's config included, if that is known. A flow model
    keeps its pipeline's own scheduler, and has no file for those programs.
    """
    name = folder.resolve().name
    first = LORA.format(file=FILE, **_pipeline(model, folder, settings))
    if _is_flow(settings or {}):
        return first
    second = (
        UIS.format(file=kohya.name, stem=kohya.stem)
        if kohya
        else CONVERT.format(
            folder=name, quoted=shlex.quote(name), file=shlex.quote(f"{name}_kohya.safetensors")
        )
    )
    return f"{first}\n\n{second}"


def all_weights(model: str, folder: Path, *, settings: Mapping[str, Any]) -> str:
    """Instructions to load the network in `folder`."""
    return ALL.format(**_pipeline(model, folder, settings))


def _pipeline(model: str, folder: Path, settings: Mapping[str, Any] | None) -> dict[str, str]:
    """The values of the snippets: settings that a config may lack, and those given in place of it."""
    known, base = dict(settings or {}), hub_id(model)
    named = {"clip_sample": False}
    if "set_alpha_to_one" in known:
        named["set_alpha_to_one"] = bool(known["set_alpha_to_one"])
    if known.get("prediction_type", "epsilon") != "epsilon":
        named["prediction_type"] = known["prediction_type"]
    if known.get("rescale_betas_zero_snr"):
        named["rescale_betas_zero_snr"] = True
    flow = _is_flow(known)
    ddim = f"pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, {', '.join(_words(named))})\n"
    reading = {name: known[name] for name in ("variant", "revision") if base and known.get(name)}
    skip = {"clip_skip": known["clip_skip"]} if known.get("clip_skip") else {}
    return {
        "base": base or BASE,
        "note": "" if base else f"  # {BASE}: the base model, by its name on the Hub or its folder",
        "imports": "DiffusionPipeline" if flow else "DDIMScheduler, DiffusionPipeline",
        "scheduler": "" if flow else ddim,
        "clipped": "" if flow else CLIPPED,
        "component": str(known.get("component", "unet")),
        "save_class": str(known.get("save_class", "UNet2DConditionModel")),
        "read": "".join(f", {word}" for word in _words(reading)),
        "skip": "".join(f", {word}" for word in _words(skip)),
        "caution": CLIP_SKIP.format(**skip) if skip else "",
        "folder": folder.resolve().name,
    }


def _is_flow(settings: Mapping[str, Any]) -> bool:
    """Whether a scheduler's config is that of a flow model: it shifts its noise levels, and has no betas."""
    return "shift" in settings and "beta_schedule" not in settings


def _words(arguments: Mapping[str, Any]) -> list[str]:
    return [f"{name}={json.dumps(v) if isinstance(v, str) else v}" for name, v in arguments.items()]
