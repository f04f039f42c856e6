"""Rewards by name, in eval mode: those that ship, those that were trained here, and code of the user's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from rewards import user_code
from rewards.declared import names
from rewards.renamed import current, current_options
from rewards.trained import is_trained, read_about
from rewards.user_code import Code

if TYPE_CHECKING:
    from rewards.base import LatentReward, Reward

_KINDS: dict[str, tuple[type, ...]] = {
    **{"int": (int,), "float": (float, int), "bool": (bool,), "str": (str, Path)},
    **{"Path": (str, Path), "None": (type(None),)},
}
"""Annotations of options -> types of the values that they take."""


@overload
def load(name: Literal["latent"], *, path: str | Path, **options: Any) -> LatentReward: ...


@overload
def load(name: str, *, towers: dict[str, Any] | None = None, **options: Any) -> Reward: ...


def load(name: str, *, towers: dict[str, Any] | None = None, **options: Any) -> Any:
    """The reward called `name`, in eval mode: `build(**options)` of the file that declares it.

    A file below `rewards/` declares `NAMES = {name: options}` and `build(**options) -> Reward`; options given
    here win over the declared ones. Rewards of yours are named "package.module" (its `build`),
    "package.module:Class", "file.py" or "file.py:Class", of the working folder too, see `user_code.find`.
    Whatever takes `towers` finds models of equal weights there, and leaves its own. Raises ValueError for an
    unknown name, with those that are like it, for code that does not import or is no Reward, for an option
    it does not take, and if it makes no Reward.
    """
    code, declared = _builder(name, options.get("weights"))
    takes = inspect.signature(code.build).parameters
    options = current_options(options, takes)
    if towers is not None and "towers" in takes:
        declared["towers"] = towers
    with user_code.on_path(code.folder):
        return _built(name, code.build, {**declared, **options})


def load_all(
    names: Iterable[str],
    options: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    towers: dict[str, Any] | None = None,
) -> dict[str, Reward]:
    """{name: reward} in eval mode, `options` by name; those of equal weights share one tower in memory.

    `towers` has those that are there already.

    Raises ValueError like `load`, and for options of a reward that is not among the names.
    """
    wanted, given = list(dict.fromkeys(names)), dict(options or {})
    if stray := sorted(set(given) - set(wanted)):
        raise ValueError(
            f"got options of {', '.join(stray)}; expected options of {', '.join(wanted)}; drop or load them"
        )
    towers = {} if towers is None else towers
    return {name: _of_images(name, load(name, towers=towers, **given.get(name, {}))) for name in wanted}


def check(name: str, **options: Any) -> None:
    """Raises ValueError as `load` does, for all that can be known of `name` and `options` without loading.

    Options "weights" and "path" that mean a place on this machine must be there.
    """
    from rewards.weights import check_there

    code, declared = _builder(name, options.get("weights"))
    options = current_options(options, inspect.signature(code.build).parameters)
    _check_options(name, code.build, {**declared, **options})
    for key in ("weights", "path"):
        if isinstance(options.get(key), str | Path):
            check_there(options[key], f"{key}={options[key]} of {name}")


def of_images(reward: object) -> Reward:
    """The reward as it is. Raises ValueError, on one line, for anything but a reward of images."""
    from rewards.base import LatentReward, Reward

    if isinstance(reward, LatentReward):
        raise ValueError(
            f"got a {type(reward).__name__}, which scores noisy latents; expected a reward of images; train "
            "lpo and train backprop take it"
        )
    if not isinstance(reward, Reward):
        raise ValueError(_not_one(reward))
    return reward


def of_any_kind(reward: object) -> Reward | LatentReward:
    """The reward as it is. Raises ValueError, on one line, for what is no reward."""
    from rewards.base import LatentReward, Reward

    if not isinstance(reward, Reward | LatentReward):
        raise ValueError(_not_one(reward))
    return reward


def _not_one(reward: object) -> str:
    if isinstance(reward, type):
        return f"got the class {reward.__name__} as a reward; expected an object; pass {reward.__name__}()"
    what = "call it in the method score(images, prompts) of such a class" if callable(reward) else "pass one"
    return (
        f"got a reward of type {type(reward).__name__}; expected a name of rewards.names(), or an object of "
        f"a class derived from rewards.Reward; {what}"
    )


def _builder(name: str, weights: object = None) -> tuple[Code, dict[str, Any]]:
    """Return the builder of the reward of this name, and the options declared for it.

    The output folder of `t2ialign train reward` may stand for a name, or be the `weights` of its base.
    """
    folder = next((part for part in (weights, name) if is_trained(part)), None)
    name = current(name)
    if folder is not None:
        return _trained(name, folder)
    known = names()
    if name in known:
        module = import_module(known[name])
        return Code(module.build, None), dict(module.NAMES[name])
    user_code.refuse_recorded(name)
    if not user_code.is_code(name):
        raise ValueError(_unknown(name, known))
    return user_code.find(name), {}


def _trained(name: str, folder: object) -> tuple[Code, dict[str, Any]]:
    base = read_about(str(folder))["reward"]
    if name not in (base, "trained", str(folder)):
        raise ValueError(
            f"got weights {folder}, trained from {base}, for {name}; expected weights trained from {name}; "
            "correct one of the two"
        )
    build = import_module(names()["trained"]).build
    return Code(build, None), {"weights": folder, "reward": name if name == base else None}


def _built(name: str, build: Callable[..., Any], options: dict[str, Any]) -> Reward:
    from rewards.base import LatentReward, Reward

    _check_options(name, build, options)
    try:
        reward = build(**options)
    except (ValueError, OSError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # files of strangers and code of users fail in any way
        if type(error).__name__ == "OutOfMemoryError":
            raise
        given = ", ".join(options) or "no options"
        raise ValueError(
            f"got {given} for {name}, whose build fails ({type(error).__name__}: {error}); expected values "
            "of the types that it takes; correct them, or that code"
        ) from error
    if not isinstance(reward, Reward | LatentReward):
        raise ValueError(
            f"got {type(reward).__name__} from {build.__module__}.{build.__qualname__}(); expected a "
            "rewards.Reward; return one"
        )
    return cast("Reward", reward.eval())


def _check_options(name: str, build: Callable[..., Any], options: Mapping[str, Any]) -> None:
    try:
        inspect.signature(build).bind(**options)
    except TypeError as error:
        takes = ", ".join(inspect.signature(build).parameters) or "no option"
        raise ValueError(f"got options of {name} that do not fit: {error}; expected {takes}") from error
    for key, value in options.items():
        kinds = _plain_kinds(getattr(build, "__annotations__", {}).get(key, ""))
        if kinds and not isinstance(value, kinds):
            wanted = " or ".join(dict.fromkeys(kind.__name__ for kind in kinds))
            raise ValueError(f"got {key}={value!r:.80} for {name}; expected {wanted}; correct the option")


def _plain_kinds(annotation: Any) -> tuple[type, ...]:
    """The types that an annotation of numbers, truth values and text allows; () for any other.

    It is read as written: annotations may name what is imported for a type checker alone.
    """
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    names = [part.strip() for part in text.split("|")]
    kinds = [_KINDS[name] for name in names if name in _KINDS]
    return tuple(kind for several in kinds for kind in several) if len(kinds) == len(names) else ()


def _of_images(name: str, reward: Reward | LatentReward) -> Reward:
    from rewards.base import Reward

    if not isinstance(reward, Reward):
        raise ValueError(
            f"got {name}, which scores noisy latents; expected rewards of images; train lpo and train "
            "backprop take it"
        )
    return reward


def _unknown(name: str, known: Iterable[str]) -> str:
    """The error for a name that is neither a reward nor code."""
    if Path(f"{name}.py").is_file():
        return (
            f"got reward {name!r}; expected a name of rewards.names(), or code of yours; for the file of the "
            f"working folder pass ./{name}.py:Class"
        )
    like = {one.lower(): one for one in known}
    if near := get_close_matches(name.lower(), like, n=1, cutoff=0.7):
        return f"got reward {name!r}; expected a name of rewards.names(); did you mean {like[near[0]]}?"
    return (
        f"got reward {name!r}; expected one of {', '.join(sorted(known))}; check the spelling; a reward of "
        "yours is package.module:Class or ./file.py:Class"
    )
