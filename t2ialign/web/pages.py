"""Pages from the templates beside this file: each is one file with its style and script inside."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from t2ialign.web.markup import escaped

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

PARTS = "parts.html"
"""The template whose macros other templates and the experiments share."""


def render(template: str, **values: object) -> str:
    """The page of a template as HTML text.

    Raises jinja2.UndefinedError for a value that the template names and `values` lacks.
    """
    return _engine().get_template(template).render(**values)


def part(name: str, *values: object) -> Markup:
    """One macro of `parts.html` as HTML text, which other templates show as it is."""
    markup: Markup = getattr(_engine().get_template(PARTS).module, name)(*values)
    return markup


@cache
def _engine() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from t2ialign.evaluation.statistics import form

    engine = Environment(
        loader=PackageLoader("t2ialign.web"),
        autoescape=True,
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters["interval"] = form
    return engine
