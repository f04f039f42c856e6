"""The page of `t2ialign pairs`: how far the tools agree, and examples of what was taken and left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from t2ialign.data.choosing import Choice
from t2ialign.data.images import ImageSource, open_rgb
from t2ialign.data.judged import Judged
from t2ialign.io import atomic
from t2ialign.io.inside import lies_within
from t2ialign.web.embedded import Shown, shown
from t2ialign.web.pages import render

EXAMPLES = 6
"""Pairs that are shown of those taken, and of those left out for each reason."""
TAKEN = "taken"
TITLES = {
    TAKEN: "Taken",
    "margin": "Left out: the margin is too small",
    "agreement": "Left out: too few tools agree",
    "tie": "Left out: a tie",
}


class Group(Protocol):
    """The images of one prompt, and the choices among them, each with why it was left out."""

    @property
    def images(self) -> Sequence[Judged]:
        """The images."""

    @property
    def choices(self) -> Sequence[tuple[Choice, str | None]]:
        """The choices."""


@dataclass(frozen=True)
class Example:
    """A pair, the better image first, with what each tool says of it."""

    prompt: str
    images: list[Shown]
    gaps: dict[str, float]
    choice: Choice


def write(
    file: Path, report: Mapping[str, Any], groups: Sequence[Group], tools: Sequence[str], root: Path | None
) -> None:
    """Write the page; of a folder `root`, which may come from others, no image outside of it is shown."""
    examples: dict[str, list[Example]] = {}
    for group in groups:
        for choice, why in group.choices:
            part = examples.setdefault(why or TAKEN, [])
            if len(part) < EXAMPLES and (example := _example(group, choice, tools, root)) is not None:
                part.append(example)
    atomic.write_text(file, page(report, {name: examples[name] for name in TITLES if examples.get(name)}))


def _example(group: Group, choice: Choice, tools: Sequence[str], root: Path | None) -> Example | None:
    sides = (("better", choice.win), ("other", choice.lose))
    prompt = group.images[choice.win].prompt
    images = [_image(group.images[place].image, f"{prompt}, the {side} image", root) for side, place in sides]
    whole = [image for image in images if image is not None]
    gaps = dict(zip(tools, choice.gaps, strict=True))
    return Example(prompt, whole, gaps, choice) if len(whole) == len(images) else None


def _image(image: ImageSource, alt: str, root: Path | None) -> Shown | None:
    """None for one that lies outside the folder, or cannot be read."""
    if root is not None and isinstance(image, Path) and not lies_within(root, image):
        return None
    with suppress(ValueError):
        return shown(open_rgb(image), alt)
    return None


def page(report: Mapping[str, Any], groups: Mapping[str, Sequence[Example]]) -> str:
    """The page as HTML text."""
    return render(
        "pairs.html",
        title=f"{report['kind'].capitalize()} from {report['source']}",
        lead=(
            f"{report['written']} {report['kind']} out of {report['images']} images of {report['prompts']} "
            f"prompts, by {', '.join(report['tools'])}"
            f"{' under ' + report['judge'] if report['judge'] else ''}."
        ),
        report=report,
        groups={TITLES[name]: examples for name, examples in groups.items()},
    )
