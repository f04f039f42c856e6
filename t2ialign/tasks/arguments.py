"""Prompts of any kind and models by name or loaded, in the form that runs need."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.io.paths import expand
from t2ialign.models.options import AS_IT_IS, ModelOptions

if TYPE_CHECKING:
    from t2ialign.models.base import Policy

Prompts = Any
"""A prompt, a file of prompts, several of both, or a pandas Series or DataFrame of prompts."""
Model = Any
"""A name as `load_policy` takes it, a `Policy`, or a diffusers pipeline; None is the toy model."""

log = logging.getLogger(__name__)


def prompts_of(prompts: Prompts) -> list[str]:
    """The prompts, in order. Raises ValueError for none, for an empty one, and for what is no text."""
    from t2ialign.data.prompts import read_prompts

    if isinstance(prompts, str | Path):
        return read_prompts(expand(prompts))
    texts = [text for item in column_of(prompts) for text in _texts_of(item)]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        odd = next((text for text in texts if not isinstance(text, str)), None)
        what = "no prompt, or an empty one" if odd is None else f"a prompt of type {type(odd).__name__}"
        raise ValueError(f"got {what}; expected some text; pass a prompt, a list of them, or a file")
    return texts


def _texts_of(item: Any) -> list[Any]:
    """A prompt as it is, or those of a file that stands among prompts."""
    from t2ialign.data.prompts import read_prompts

    return read_prompts(expand(item)) if isinstance(item, Path) else [item]


def sources_of(prompts: Prompts) -> list[Path]:
    """The files that prompts are read from."""
    several = [prompts] if isinstance(prompts, str | Path) else column_of(prompts)
    texts = (expand(item) for item in several if isinstance(item, str | Path) and len(str(item)) < 256)
    return [path for path in map(Path, texts) if path.is_file()]


def column_of(prompts: Any) -> Iterable[Any]:
    """The column of prompts of a DataFrame, by its usual names; anything else as it is.

    Raises ValueError for a DataFrame without such a column, and for what cannot be gone through.
    """
    from t2ialign.data.files.tables import first_of
    from t2ialign.data.prompts import PROMPT_COLUMNS

    if is_frame(prompts):
        column = first_of(list(prompts.columns), PROMPT_COLUMNS)
        if column is None:
            raise ValueError(
                f"got a table with the columns {', '.join(map(str, prompts.columns))}; expected one called "
                f"{', '.join(PROMPT_COLUMNS)}; rename the column of prompts"
            )
        prompts = prompts[column]
    if not isinstance(prompts, Iterable):
        raise ValueError(f"got prompts of type {type(prompts).__name__}; expected text, or a list of texts")
    return prompts


def rows_of(frame: Any) -> list[dict[str, Any]]:
    """The rows of a DataFrame as JSON can hold them; a cell that names a file from here names it in full.

    Raises ValueError for cells of another kind, such as images in memory.
    """
    from t2ialign.data.prompts import PROMPT_COLUMNS

    rows = []
    for row in frame.to_dict("records"):
        named = {str(name): _cell(value) for name, value in row.items()}
        places = {name: value for name, value in named.items() if name.lower() not in PROMPT_COLUMNS}
        rows.append(named | {name: _in_full(value) for name, value in places.items()})
    try:
        json.dumps(rows, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"got a table with a cell that is no text, number or list ({error}); expected images by their "
            "files; save them and give their paths"
        ) from error
    return rows


def _cell(value: Any) -> Any:
    """A missing value is null, a path is text."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _in_full(value: Any) -> Any:
    """The absolute path of a file, if the text names one."""
    is_file = isinstance(value, str) and 0 < len(value) < 256 and Path(value).expanduser().is_file()
    return str(Path(value).expanduser().absolute()) if is_file else value


def is_frame(value: object) -> bool:
    """Whether it is a pandas DataFrame, which is not imported for that."""
    return type(value).__module__.split(".")[0] == "pandas" and hasattr(value, "columns")


def path_of(place: str | Path | None) -> Path | None:
    """A file or folder that may begin with ~, in full."""
    return None if place is None else Path(place).expanduser()


def is_name(model: Model) -> bool:
    """Whether a model is named, and not loaded."""
    return isinstance(model, str | Path)


def name_of(model: Model) -> str:
    """The name of a model in manifests and settings."""
    return str(model) if is_name(model) else f"a {type(model).__name__} loaded in Python"


def policy_of(
    model: Model,
    *,
    precision: str | None = None,
    attention: str = "sdpa",
    options: ModelOptions = AS_IT_IS,
    sides: Sequence[int] = (),
) -> Policy:
    """The model as a policy: loaded where it is named, else as it is.

    Raises ValueError as `load_policy` and `wrap` do, for settings of loading beside a loaded model, and for
    what is no model.
    """
    if is_name(model):
        from t2ialign.models import load

        how: dict[str, Any] = {"precision": precision or "fp32", "attention": attention}
        return load.load_policy(str(model), options=options, sides=sides, **how)
    if precision is not None or attention != "sdpa" or options.given():
        raise ValueError(
            f"got precision, attention or model_options for {name_of(model)}; expected them with a model by "
            "name; set them on the model itself"
        )
    from t2ialign.models.wrapped import loaded

    return loaded(model)
