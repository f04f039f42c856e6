"""YAML file + `key=value` overrides -> one frozen, checked pydantic object; every mistake is one line."""

from __future__ import annotations

import difflib
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from t2ialign import peers
from t2ialign.io import plain_yaml
from t2ialign.io.paths import expand
from t2ialign.renamed import converted, key_today, place_today, today


class Config(BaseModel):
    """Frozen settings: an unknown key is an error, and the docstring under a field is its help text.

    A text or path that begins with ~/ is one below the home folder, whatever the key. Old names and those of
    other scripts are taken too.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    EXAMPLES: ClassVar[str] = ""
    """The examples at the end of --help: lines, each a sentence and the command that it describes."""

    if not TYPE_CHECKING:  # type checkers know the fields that each class takes

        def __init__(self, **values: Any) -> None:
            """Raises ValueError for an unknown key, a missing one and a wrong value, all on one line."""
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise ValueError(" | ".join(_explain(type(self), dict(e)) for e in error.errors())) from error

    @model_validator(mode="before")
    @classmethod
    def _as_of_today(cls, values: Any) -> Any:
        return expand(today(values, cls.model_fields) if isinstance(values, dict) else values)


C = TypeVar("C", bound=Config)
SHOWN = 200
"""Characters of a wrong value that a message shows at most."""


def load(
    cls: type[C],
    file: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    folders: Sequence[Path] = (),
    values: Mapping[str, Any] | None = None,
) -> C:
    """Settings of class `cls`; later wins: class defaults < YAML file < overrides such as `lr=1e-4` < values.

    A key may be written with dashes, or as `peers.ALIASES` has it. A value of the YAML file that names no
    file from here, but one in one of `folders`, is that file. Raises ValueError, on one line, for an
    unreadable file, an override without `=`, an unknown key (naming the nearest known one), a missing key or
    a wrong value.
    """
    merged = _from_file(cls, file) if file else {}
    for key, value in merged.items():
        if isinstance(value, str) and key in cls.model_fields and _is_words(cls.model_fields[key]):
            merged[key] = [] if value.lower() == "none" else [value]
        elif isinstance(value, str):
            merged[key] = _located(value, folders)
    for item in overrides:
        theirs, equals, text = item.partition("=")
        if not equals or not theirs:
            raise ValueError(
                f"got override {_shown(item)}; expected key=value; write for example lr=1e-4, or --lr 1e-4"
            )
        key = renamed(cls, theirs)
        text = converted(theirs, text) if key != theirs else text
        _assign(merged, key.split("."), _parse(text, cls.model_fields.get(key)))
    merged |= {renamed(cls, key): value for key, value in (values or {}).items()}
    try:
        config = cls(**merged)
    except ValueError as error:
        raise ValueError(f"{file}: {error}" if file else str(error)) from error
    _check_numbers(config)
    return config


def renamed(cls: type[Config], key: str) -> str:
    """Our name of a key that may be written with dashes, or as another script or an old release has it."""
    return key_today(key, cls.model_fields)


def save(config: Config, file: Path) -> None:
    """Write every value, defaults included, as YAML that `load` reads back to an equal object."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    scratch = file.with_name(f".{file.name}.part")  # a full disk must not cost the file that is there
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(file)


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is {}. Raises ValueError if it is anything else."""
    if not file.is_file():  # a pipe would be waited for, and a device may never end
        raise ValueError(f"got config {file}; expected a YAML file; check the path")
    try:
        values = plain_yaml.read(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"got {file}, which is not YAML ({error}); expected key: value lines") from error
    if values is not None and not isinstance(values, dict):
        raise ValueError(f"got a {type(values).__name__} in {file}; expected key: value lines; see --help")
    return values or {}


def describe(cls: type[Config]) -> str:
    """Help text: each key once, with its type, default and docstring; own keys before inherited ones."""
    parts: list[str] = []
    left = dict(cls.model_fields)
    for owner in cls.__mro__:
        names = [name for name in inspect.get_annotations(owner) if name in left]
        if names and issubclass(owner, Config):
            title = " ".join((owner.__doc__ or owner.__name__).split())
            parts.append("\n".join([title, *(_describe_field(name, left.pop(name)) for name in names)]))
    return "\n\n".join(parts)


def _from_file(cls: type[Config], file: Path) -> dict[str, Any]:
    """The values of a YAML file under our names. Raises ValueError for one that is there under two names."""
    values: dict[str, Any] = {}
    for theirs, value in read_yaml(file).items():
        key = renamed(cls, str(theirs))
        if key in values:
            raise ValueError(f"got {key} twice in {file}, once as {theirs}; expected it once; drop one")
        if key != theirs and (text := converted(theirs, "no" if value is False else value)) != value:
            value = _parse(text, cls.model_fields.get(key))
        values[key] = value
    return values


def _located(value: str, folders: Sequence[Path]) -> str:
    """The file of that name in the first folder that has it, unless there is one in the working folder."""
    if not 0 < len(value) < 256 or Path(value).exists():  # longer ones are prompts
        return value
    value = place_today(value)
    return next((str(folder / value) for folder in folders if (folder / value).is_file()), value)


def _assign(values: dict[str, Any], path: list[str], value: Any) -> None:
    for parent in path[:-1]:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ValueError(f"got {'.'.join(path)}; expected {parent} to hold keys; remove the dot")
    values[path[-1]] = value


def _parse(text: str, field: FieldInfo | None) -> Any:
    """YAML, except that a text or path field takes the words as typed: `output=007` is no octal number.

    A list of text takes one word, or one prompt, without the brackets; none and nothing are the empty list.
    """
    if field and _is_words(field) and not text.lstrip().startswith("["):
        return [] if text.lower() in ("", "null", "none", "~") else [text]
    kinds = set(members(field.annotation)) if field else set()
    if kinds & {str, Path} and not (NoneType in kinds and text.lower() in ("", "null", "none", "~")):
        return text
    if text.lower() == "none":
        return None
    try:
        return plain_yaml.read(text)
    except ValueError:
        return text


def _is_words(field: FieldInfo) -> bool:
    return bool(field.annotation == tuple[str, ...])


def _explain(cls: type[Config], error: dict[str, Any]) -> str:
    """One pydantic error as `key: got X; expected Y; do Z`."""
    loc = [str(part) for part in error["loc"]]
    key, kind = ".".join(loc), error["type"]
    if kind == "extra_forbidden":
        if len(loc) == 1 and (instead := peers.advice(key)) is not None:
            return f"got {key!r}, a setting of another script; {instead}; --help lists every key"
        return f"got unknown key {key!r}; {_nearest(cls, loc)}; --help lists every key"
    field = cls.model_fields.get(loc[0]) if loc else None
    words = " ".join((field.description or "").split()) if field else ""
    doc = words.split(". ")[0].rstrip(".")  # the first sentence of its help
    if kind == "missing":
        return f"got no {key!r}; expected {doc[:1].lower() + doc[1:] or 'a value'}; add {key}=..."
    wanted = str(error["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    if not loc:  # said of several settings at once, by a class of settings
        return wanted
    wanted = f"a number {wanted}" if wanted.startswith(("greater", "less")) else wanted
    meaning = f"--help says of {key.split('.')[0]}: {doc}" if doc else f"see {key.split('.')[0]} in --help"
    return f"{key}: got {_shown(error['input'])}; expected {wanted}; {meaning}"


def _shown(value: Any) -> str:
    plain = isinstance(value, str | int | float | list | tuple | dict | Path | None)
    text = " ".join((repr(value) if plain else f"a {type(value).__name__}").split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _check_numbers(config: Config) -> None:
    """Raises ValueError for a whole number that takes more than 64 bits, which no library can use."""
    for key in type(config).model_fields:
        value = getattr(config, key)
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, int) and not -(2**63) <= item < 2**63:
                raise ValueError(f"{key}: got {item}; expected a number below 2^63; choose a smaller one")


def _nearest(cls: type[Config], loc: list[str]) -> str:
    known: dict[str, str] = {name: name for name in cls.model_fields}
    theirs = {peer: ours for peer, ours in peers.ALIASES.items() if ours in known}
    if len(loc) > 1:
        return f"expected none inside {loc[0]!r}"
    close = difflib.get_close_matches(loc[0], [*theirs, *known], n=1, cutoff=0.6)
    return (
        f"expected {(theirs | known)[close[0]]!r}, the nearest known one" if close else "expected a known one"
    )


def _describe_field(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else f"default {_plain(field.get_default())}"
    limits = [
        f"{sign} {getattr(m, attr)}" for m in field.metadata for attr, sign in LIMITS if hasattr(m, attr)
    ]
    kind = " ".join([_type_name(field.annotation), ", ".join(limits)]).strip()
    doc = textwrap.fill(
        " ".join((field.description or "").split()), 100, initial_indent=" " * 6, subsequent_indent=" " * 6
    )
    return f"  {name} ({kind}; {default})" + (f"\n{doc}" if doc else "")


LIMITS = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))


def members(annotation: Any) -> tuple[Any, ...]:
    """The kinds of value that an annotation allows, None among them."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _type_name(annotation: Any) -> str:
    if len(members(annotation)) > 1:
        return " or ".join(_type_name(member) for member in members(annotation))
    if get_origin(annotation) is Literal:
        return " | ".join(str(choice) for choice in get_args(annotation))
    if get_origin(annotation) in (tuple, list):
        return f"list of {_type_name(get_args(annotation)[0])}"
    return {NoneType: "none", str: "text", Path: "path", bool: "true | false"}.get(
        annotation, getattr(annotation, "__name__", str(annotation))
    )


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(str, value)) + "]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
