"""LoRAs as files: mixed, converted, folded into their base model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from t2ialign.api.parameters import takes_former_names
from t2ialign.io.paths import expand
from t2ialign.models.options import options_from

if TYPE_CHECKING:
    from t2ialign.tasks.mixing import Mixture

Place = str | Path
"""A file or a folder."""
Precision = Literal["fp32", "bf16", "fp16"]
Options = Mapping[str, Any]
"""Settings by their names."""


@takes_former_names
def mix(a: Place, b: Place, output: Place, *, alpha: float) -> Mixture:
    """Mix two LoRAs of one model into a folder: alpha * a + (1 - alpha) * b, exactly, in weight space.

    a, b: folders of runs, or .safetensors files in any known format; ranks and layers may differ. alpha: the
    share of a, in [0, 1]. Raises ValueError for two LoRAs that do not fit, and for an output in use.
    """
    from t2ialign.tasks import mixing

    return mixing.run(Path(a).expanduser(), Path(b).expanduser(), alpha, Path(output).expanduser())


@takes_former_names
def export(
    lora: Place,
    output: Place,
    format: Literal["kohya", "diffusers", "merged"],
    *,
    model: Any = None,
    model_options: Options | None = None,
    precision: Precision = "fp32",
) -> Path:
    """Write a LoRA for ComfyUI and A1111 (kohya) or diffusers, or fold it into its base model -> the file.

    lora: a run's folder or a .safetensors file in any known format, with ":SCALE" behind it for other
    strengths. output: a new .safetensors file or folder. model: the base model, which "merged" needs: a name,
    a diffusers pipeline or a `Policy`, which stay as they are. model_options: how a named model is loaded.
    precision: that in which weights are written. Raises ValueError for a LoRA that does not fit its model,
    and for an output that is there.
    """
    from t2ialign.tasks import exporting

    how = exporting.Export(
        lora=expand(str(lora)),
        output=Path(output).expanduser(),
        format=format,
        model=model,
        options=options_from(model_options),
        precision=precision,
    )
    return exporting.run(how)
