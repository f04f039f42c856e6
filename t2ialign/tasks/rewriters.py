"""The rewriter that goes before a model: what is named, and settings of it, as runs need them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.rewriting.arguments import FLAGS, chosen
from t2ialign.rewriting.job import Job
from t2ialign.rewriting.load import Choice
from t2ialign.rewriting.rewriter import Rewriter
from t2ialign.tasks.arguments import Model, is_name
from t2ialign.tasks.rendering import Rewriting
from t2ialign.toy import default as toy

if TYPE_CHECKING:
    from rewards.llm.base import Heard


@dataclass(frozen=True)
class Loaded(Choice):
    """A rewriter object of the user, which writes its rewrite between the usual tags, or nothing else."""

    rewriter: Rewriter | None = None

    @property
    def label(self) -> str:
        """The name of its class."""
        return self.name

    def load(self, heard: Heard | None = None) -> Rewriter:
        """The object itself."""
        assert self.rewriter is not None, "it was made of one"
        return self.rewriter


def choice_of(rewriter: str | Choice | Rewriter, options: Mapping[str, Any], *, seed: int = 0) -> Choice:
    """A rewriter by name with its settings: preset, url, intensity, temperature, and those of its model.

    Raises ValueError as `rewriting.load.choose` does, and for an object that is no rewriter.
    """
    if isinstance(rewriter, Choice):
        return rewriter
    if not isinstance(rewriter, str):
        if options:
            raise ValueError(
                f"got rewriter_options for a {type(rewriter).__name__} object; expected them with a rewriter "
                "by name; set them on the object"
            )
        if isinstance(rewriter, type) or not callable(getattr(rewriter, "write", None)):
            raise ValueError(
                f"got a rewriter of type {type(rewriter).__name__}; expected a name, or an object with a "
                "method write(prompts, *, attempt); see docs/rewrite.md"
            )
        return Loaded(type(rewriter).__name__, rewriter=rewriter)
    flags = {key: options[key] for key in FLAGS if key in options}
    rest = {key: value for key, value in options.items() if key not in FLAGS}
    return chosen(rewriter, **{"seed": seed, **flags}, options=rest)


def rewriting_of(
    model: Model,
    rewriter: str | Choice | Rewriter | None,
    options: Mapping[str, Any],
    *,
    html: Path | None = None,
    seed: int = 0,
) -> Rewriting | None:
    """How prompts are rewritten for a model, to fit its text encoder where it is named; None without one.

    Raises ValueError as `choice_of` does, and for options or a page without a rewriter.
    """
    if rewriter is None:
        if options or html is not None:
            stray = "rewriter_options" if options else "html"
            raise ValueError(f"got {stray} without rewriter; expected both; add rewriter")
        return None
    if html is not None:
        from t2ialign.rewriting.page import check_page

        check_page(html)
    return Rewriting(Job(choice_of(rewriter, options, seed=seed), _fit(model)), html)


def _fit(model: Model) -> str | None:
    """The model whose text encoder must take a rewrite; None for a loaded one, whose files are not known."""
    if model is None:
        return toy.NAME
    return str(model) if is_name(model) else None
