"""How to use what a run wrote, as its model card shows it: in diffusers, ComfyUI, A1111 and Forge, or Python.

A card goes where its reader has no file of the machine that wrote it: the folder has its name only, and a
base model its name on the Hub, or none.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2ialign.models.lora_files import FILE

BASE = "BASE"
"""Stands for a base model that only the machine of the run has."""

LORA = """In diffusers, with the scheduler whose steps the run took:

```python
from diffusers import DDIMScheduler, DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{base}"){note}
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, {scheduler})
pipe.load_lora_weights("{folder}", weight_name="{file}")  # this folder
image = pipe("a prompt", num_inference_steps=20, guidance_scale=5.0).images[0]
```

`clip_sample=False` is needed: a DDIM scheduler made of a PNDM config clips latents as if they were pixels."""

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
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel

unet = UNet2DConditionModel.from_pretrained("{folder}", subfolder="unet")  # this folder
pipe = DiffusionPipeline.from_pretrained("{base}", unet=unet){note}
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, {scheduler})
image = pipe("a prompt", num_inference_steps=20, guidance_scale=5.0).images[0]
```"""

SCORER = """```python
import rewards

reward = rewards.load("trained", weights="{folder}")  # this folder
```"""

LATENT = """```python
import rewards

reward = rewards.load("latent", path="{folder}")  # this folder
scores = reward.score(latents, t, prompts)  # (B, C, h, w), (B,) and B texts -> (B,)
```"""


def hub_id(model: str) -> str | None:
    """The model's name on the Hub; None for the embedded model, a file or a folder."""
    local = Path(model).expanduser().exists() or model.startswith((".", "~", "/"))
    return model if model.count("/") == 1 and not local and "\\" not in model else None


def shown(model: str) -> str:
    """How a card names the model: as on the Hub, or by its last name."""
    return hub_id(model) or Path(model).name


def lora(model: str, folder: Path, *, kohya: Path | None, schedule: Mapping[str, Any] | None = None) -> str:
    """How to load the LoRA in `folder`; kohya: its file for ComfyUI, A1111 and Forge, if there is one.

    schedule: the config of a DDIM scheduler of the base model, if it is known.
    """
    name = folder.resolve().name
    first = LORA.format(file=FILE, **_pipeline(model, folder, schedule))
    second = (
        UIS.format(file=kohya.name, stem=kohya.stem)
        if kohya
        else CONVERT.format(
            folder=name, quoted=shlex.quote(name), file=shlex.quote(f"{name}_kohya.safetensors")
        )
    )
    return f"{first}\n\n{second}"


def all_weights(model: str, folder: Path, *, schedule: Mapping[str, Any]) -> str:
    """How to load the network in `folder`."""
    return ALL.format(**_pipeline(model, folder, schedule))


def _pipeline(model: str, folder: Path, schedule: Mapping[str, Any] | None) -> dict[str, str]:
    settings = "clip_sample=False"
    if schedule is not None:  # a config that does not state it would get the scheduler's own default
        settings += f", set_alpha_to_one={bool(schedule['set_alpha_to_one'])}"
    base = hub_id(model)
    note = "" if base else f"  # {BASE}: the base model, by its name on the Hub or its folder"
    return {"base": base or BASE, "note": note, "scheduler": settings, "folder": folder.resolve().name}
