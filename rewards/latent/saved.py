"""The folder of a latent reward as `t2ialign train lrm` writes it: weights, configuration and tokenizers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rewards import tensor_files
from rewards.foreign import mapping, reading
from rewards.latent import released
from rewards.latent.lrm import LRM
from rewards.latent.mmdit import MMDiTBackbone
from rewards.latent.networks import TOKENIZERS, new_backbone
from rewards.permissions import share
from rewards.weights import find, load_state, located

NAMES: dict[str, dict[str, Any]] = {"latent": {}}
TABLE = {
    "latent": (
        "the output folder of `t2ialign train lrm`, or LRM as released | noisy latents, no images | "
        "the window of its text encoders | exp(tau) cosine | yes | base and data"
    ),
}

WEIGHTS, ABOUT = "latent_reward.safetensors", "latent_reward.json"
FORMAT = 1


def save(reward: LRM, folder: Path | str, about: Mapping[str, Any] | None = None) -> Path:
    """Write weights, configuration and tokenizers, each file whole or not at all -> the file of weights.

    about: anything else worth knowing, as plain JSON. Raises OSError where the disk refuses.
    """
    folder, backbone = Path(folder), reward.backbone
    folder.mkdir(parents=True, exist_ok=True)
    for name, tokenizer in zip(TOKENIZERS, backbone.tokenizers, strict=False):
        tensor_files.save_pretrained(tokenizer, folder / name)
    rows = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in reward.state_dict().items()}
    children: list[tuple[str, Any]] = list(backbone.named_children())
    (kind, network), *encoders = children
    facts = {
        "format": FORMAT,
        kind: dict(network.config),
        **{name: encoder.config.to_dict() for name, encoder in encoders},
        "dim": reward.dim,
        "guidance": reward.guidance_scale,
        "about": dict(about or {}),
    }
    if isinstance(backbone, MMDiTBackbone):
        facts["layer"] = backbone.layer
    scratch = folder / f".{WEIGHTS}.part"
    tensor_files.write(rows, scratch, {"format": "pt"})
    share(scratch).replace(folder / WEIGHTS)
    scratch = folder / f".{ABOUT}.part"
    scratch.write_text(json.dumps(facts, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    scratch.replace(folder / ABOUT)
    return folder / WEIGHTS


def build(
    path: str | Path | None = None, *, guidance_scale: float | None = None, sha256: str | None = None
) -> LRM:
    """The latent reward in the folder `path`, as `save` or `t2ialign train lrm` wrote it, or as released.

    guidance: in place of the one it was trained with. sha256: of `save`'s file of weights. Raises ValueError
    for a folder of another kind, and weights that do not fit its configuration.
    """
    if path is None:
        raise ValueError(
            "got no path for latent; expected the output of t2ialign train lrm, or a released latent reward; "
            "pass path=FOLDER"
        )
    folder = Path(path) if Path(path).is_dir() else Path(located(str(path))[0])
    if folder.is_dir() and not (folder / WEIGHTS).is_file():
        return released.build(folder, guidance_scale=guidance_scale, sha256=sha256)
    folder = find(path, WEIGHTS, sha256=sha256).parent
    facts = read_about(folder)
    with reading(folder, "the output of t2ialign train lrm"):
        reward = LRM(
            new_backbone(facts, folder), dim=facts["dim"], guidance_scale=guidance_scale or facts["guidance"]
        )
    try:
        reward.load_state_dict(load_state(folder / WEIGHTS))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[1:2] or [str(error)]
        raise ValueError(
            f"got {folder / WEIGHTS}, which does not fit {ABOUT} ({reason[0].strip()}); expected both of one "
            "run; restore them"
        ) from error
    return reward.eval()


def read_about(folder: Path | str) -> dict[str, Any]:
    """What the configuration says. Raises ValueError for a folder without it, or of another format."""
    file = Path(folder) / ABOUT
    if not file.is_file():
        raise ValueError(f"got {folder} without {ABOUT}; expected the output of t2ialign train lrm")
    facts = mapping(file)
    if facts.get("format") != FORMAT:
        raise ValueError(
            f"got format {facts.get('format')} in {file}; expected {FORMAT}; use the version that wrote it"
        )
    return facts
