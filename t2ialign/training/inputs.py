"""Checks that every input of a run exists before anything is loaded: later it would cost minutes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import rewards
from rewards.weights import check_there
from t2ialign.config import Config
from t2ialign.data.prompts import read_prompts
from t2ialign.data.sources import FILES
from t2ialign.io.paths import check_place
from t2ialign.models.lora_files import lora_file
from t2ialign.models.sources import is_path, locate


def check_inputs(cfg: Config, supplied: Collection[str] = ()) -> None:
    """Raises ValueError that names every model, reward, data set and file of prompts that is not there.

    What may be on the Hub is not asked for. supplied: keys whose object was handed over, so that the name is
    none to be looked for.
    """
    problems = []
    for key, check in _checks(cfg):
        if key not in supplied and getattr(cfg, key, None) not in (None, ()):
            try:
                check(getattr(cfg, key))
            except ValueError as error:
                problems.append(str(error))
    if problems:
        raise ValueError(" | ".join(problems))


def check_data(source: str) -> None:
    """Raises ValueError for a file or folder of data that is not there."""
    path = Path(source).expanduser()
    if not path.exists() and (path.suffix.lower() in FILES or is_path(source)):
        raise ValueError(f"got {source}, which does not exist; expected a file or folder; check the path")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(
            f"got {source}, which is a device, a pipe or a socket; expected a file or folder; check the path"
        )


def check_rewriter(name: str) -> None:
    """Raises ValueError for a language model that can be nothing here."""
    from t2ialign.rewriting.load import choose

    choose(name)


def _checks(cfg: Config) -> Iterator[tuple[str, Callable[[Any], object]]]:
    """Settings that name something, with what looks for it."""
    rewriter = getattr(cfg, "language_model", False)
    yield "output", lambda place: check_place(place, "output")
    yield "cache", lambda place: check_place(place, "cache")
    yield "data", check_data
    yield "model", check_rewriter if rewriter else locate
    yield "generator", locate
    yield "init_lora", lora_file
    yield "prompts", check_data if rewriter else read_prompts
    yield "heldout_prompts", read_prompts
    yield "monitor_prompts", read_prompts
    yield "validation_prompts", lambda prompts: [read_prompts(item) for item in prompts]
    yield "text_projection", lambda source: check_there(source, f"text_projection={source}")
    yield "monitor_rewards", _check_rewards
    yield "reward", lambda names: _check_reward(cfg, names)


def _check_reward(cfg: Config, names: str) -> None:
    """The reward, or several separated by commas, whose options stand under their names."""
    options = _options(cfg)
    if "," not in names:
        rewards.check(names, **options)
        return
    for name in (part.strip() for part in names.split(",")):
        rewards.check(name, **options.get(name, {}))


def _check_rewards(names: Collection[str]) -> None:
    for name in names:
        rewards.check(name)


def _options(cfg: Config) -> dict[str, Any]:
    """The options of the reward that is trained or climbed."""
    weights = getattr(cfg, "weights", None)
    return {**getattr(cfg, "reward_options", {}), **({} if weights is None else {"weights": weights})}
