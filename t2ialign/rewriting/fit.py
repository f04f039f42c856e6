"""The token budget of a pipeline: its own tokenizer and its text encoder's window, without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def budget_of(model: str) -> tuple[Any, int]:
    """ "shapes", a diffusers folder, a run that trained all weights, or a Hub id -> (tokenizer, its window).

    The window is in tokens, begin and end marks included. Raises ValueError if there is no such pipeline.
    """
    from transformers import AutoTokenizer, PreTrainedConfig

    source = _source(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, subfolder="tokenizer")
        config, _ = PreTrainedConfig.get_config_dict(source, subfolder="text_encoder")
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"got model {model!r} without a tokenizer that loads ({reason}); expected shapes, a diffusers "
            "folder or a Hub id; check the name"
        ) from error
    longest = int(tokenizer.model_max_length)
    return tokenizer, min(longest, int(config.get("max_position_embeddings", longest)))


def _source(model: str) -> str:
    """The folder or id that holds the tokenizer: of a run that trained all weights, its base model's."""
    if model == "shapes":
        from rewards.assets import folder

        return str(folder("shapes"))
    path = Path(model).expanduser()
    settings = path / "config.yaml"
    if settings.is_file() and not (path / "model_index.json").is_file():
        import yaml

        base = yaml.safe_load(settings.read_text(encoding="utf-8")).get("model")
        if isinstance(base, str) and base != model:
            return _source(base)
    return str(path) if path.is_dir() else model
