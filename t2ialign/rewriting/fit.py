"""The token budget of a pipeline: its own tokenizer and its text encoder's window, without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rewards.renamed import current

TOY = "toy"


def budget_of(model: str) -> tuple[Any, int]:
    """The name of a model or of a run on one -> (its tokenizer, its window); a folder may lack weights.

    The window is in tokens, begin and end marks included. Raises ValueError if there is no such pipeline.
    """
    from transformers import AutoTokenizer, PreTrainedConfig

    from rewards.hub import check_repository
    from t2ialign.models.sources import locate

    place = _base_of(model) or model
    if place == TOY or not Path(place).is_dir():
        source = locate(place)
        if source.file is not None:
            return _budget_of_file(source.file)
        place = source.place
    try:
        check_repository(place, "tokenizer/tokenizer_config.json")
        tokenizer = AutoTokenizer.from_pretrained(place, subfolder="tokenizer", trust_remote_code=False)
        config, _ = PreTrainedConfig.get_config_dict(place, subfolder="text_encoder")
        longest = int(tokenizer.model_max_length)
        return tokenizer, min(longest, int(config.get("max_position_embeddings", longest)))
    except Exception as error:  # a model's files lead libraries to errors of any kind
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"got model {model!r} without a tokenizer that loads ({reason}); expected toy, a diffusers "
            "folder, a single file of weights or a Hub id; check the name"
        ) from error


def is_toy(model: str) -> bool:
    """Whether a model is the toy one, or a run on it."""
    return TOY in (model, _base_of(model))


def _base_of(name: str) -> str | None:
    """The folder of a pipeline, or the base model of a run in it; None for what is no folder here."""
    path = Path(name).expanduser()
    if name == TOY or not path.is_dir():
        return None
    settings = path / "config.yaml"
    if settings.is_file() and not (path / "model_index.json").is_file():
        from t2ialign.io import plain_yaml

        try:
            values = plain_yaml.read(settings.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"got {settings}, which is not YAML ({error}); restore it") from error
        base = values.get("model") if isinstance(values, dict) else None
        if isinstance(base, str) and Path(base).expanduser() != path:
            return _base_of(base) or current(base)
    return str(path)


def _budget_of_file(file: Path) -> tuple[Any, int]:
    from t2ialign.models.single.configs import text_configs, tokenizers
    from t2ialign.models.single.facts import read_facts

    facts = read_facts(file)
    tokenizer, config = tokenizers(facts.family)["tokenizer"], text_configs(facts)["text_encoder"]
    return tokenizer, min(int(tokenizer.model_max_length), int(config["max_position_embeddings"]))
