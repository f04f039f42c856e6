"""One LoRA between two: their mixture, its model card, and the line that a command prints."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rewards.renamed import current
from t2ialign.io import locks, naming

if TYPE_CHECKING:
    from t2ialign.models.lora_files import Lora

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mixture:
    """A LoRA that was mixed of two."""

    file: Path
    """Its weights, as diffusers loads them."""
    what: str
    """The mixture in words."""
    rank: int
    layers: int
    shared: int
    """Layers that both have."""
    bases: tuple[str, ...]
    """The models that the two were trained for, where they say it."""

    @property
    def folder(self) -> Path:
        """Its path, for `loras` of `sample`."""
        return self.file.parent


def run(a: Path, b: Path, alpha: float, output: Path) -> Mixture:
    """Write alpha * a + (1 - alpha) * b and its card into a folder.

    Raises ValueError for an alpha outside [0, 1], for files that are no LoRAs, for two LoRAs of different
    models, and for a folder in use.
    """
    if not 0 <= alpha <= 1:  # also catches NaN
        raise ValueError(
            f"got {naming.given('alpha', alpha)}; expected the share of A, from 0 to 1; change it"
        )
    from t2ialign.models.lora_files import FILE, partial_name

    with locks.hold_folder(output, naming.prefix("output")):
        locks.check_free(
            output, naming.prefix("output"), passing=lambda item: item.name == partial_name(FILE)
        )
        return _mixed(a, b, alpha, output)


def _mixed(a: Path, b: Path, alpha: float, output: Path) -> Mixture:
    from t2ialign.models import lora_family
    from t2ialign.models.lora_files import FILE, lora_file, read_lora, write_diffusers
    from t2ialign.models.mixing import mix_layers

    for path in (a, b):
        lora_file(path)
    first, second = read_lora(a), read_lora(b)
    layers = mix_layers(first.layers, second.layers, alpha)
    shared = len(first.layers.keys() & second.layers.keys())
    _say(first, second, shared)
    bases = list(dict.fromkeys(base for path in (a, b) if (base := _base(path))))
    header = {**lora_family.carried(first.header), "modelspec.title": output.resolve().name}
    file = write_diffusers(layers, output / FILE, header)
    rank = max(factors.rank for factors in layers.values())
    names = [path.resolve().name for path in (a, b)]
    _write_card(output, f"{alpha:g} x {names[0]} + {1 - alpha:g} x {names[1]}", bases, rank)
    what = f"{alpha:g} x {a} + {1 - alpha:g} x {b}"
    return Mixture(file, what, rank, len(layers), shared, tuple(bases))


def _say(first: Lora, second: Lora, shared: int) -> None:
    """How many layers of each the other has too. Raises ValueError if there are none."""
    for lora in (first, second):
        count = f"LoRA {lora.file} ({lora.format}): {shared} of {len(lora.layers)} layers matched"
        if not shared:
            raise ValueError(f"got {count} by the other LoRA; expected two LoRAs for the same model")
        if shared < len(lora.layers):
            log.warning("WARNING: %s by the other LoRA; the rest is mixed with 0", count)
        else:
            log.info("%s", count)


def _base(path: Path) -> str | None:
    """The model that a run's folder was trained for; None for any other LoRA, which does not say."""
    from t2ialign.io import plain_yaml

    settings = path / "config.yaml"
    if not settings.is_file():
        return None
    try:
        values = plain_yaml.read(settings.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"got {settings}, which is not YAML ({error}); expected a run's own") from error
    base = values.get("model") if isinstance(values, dict) else None
    return current(base) if isinstance(base, str) else None


def _write_card(output: Path, what: str, bases: list[str], rank: int) -> None:
    import yaml

    from t2ialign.io import atomic
    from t2ialign.training import usage
    from t2ialign.version import __version__

    public = [name for base in bases if (name := usage.hub_id(base))]
    head = {
        **({"base_model": public} if public else {}),
        "license": "other",
        "license_name": "as-base-model-and-data",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "diffusers", "lora", "mix", "t2ialign"],
    }
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).strip(),
        "---",
        "",
        f"# {output.resolve().name}",
        "",
        f"`{what}` in weight space, by `t2ialign mix` {__version__}.",
        "",
        f"- Base model: {' and '.join(map(usage.shown, bases)) or 'that of the two'}",
        f"- Rank: {rank}, with the scales of both in the weights: load it at weight 1",
        "- Licence: that of the base model and of the data of both",
        "",
        "## Use it",
        "",
        usage.lora(bases[0] if bases else usage.BASE, output, kohya=None),
    ]
    atomic.write_text(output / "README.md", "\n".join(lines) + "\n")
