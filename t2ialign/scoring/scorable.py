"""Which items rewards can score: those with a prompt where one is needed, no longer than any reward reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rewards import Reward
from rewards.text.length import too_long
from t2ialign.io import naming
from t2ialign.scoring.items import Item

NO_PROMPT = "got no prompt; expected NAME.txt beside it or a row in the table of prompts; add it"


def needing(rewards: Mapping[str, Reward]) -> list[str]:
    """Names of the rewards that cannot score an image without a prompt."""
    return [name for name, reward in rewards.items() if reward.needs_text]


def check_some_prompt(items: Sequence[Item], names: Sequence[str]) -> None:
    """Raises ValueError if there are images and none has a prompt, which rewards of these names need."""
    images = [item for item in items if item.error is None]
    if images and not any(item.prompt for item in images):
        raise ValueError(
            f"got no prompt for any of the first {len(images)} images; expected one each for "
            f"{', '.join(names)}: a .txt beside each, {naming.name('prompts')} with a table or a text (for "
            f"images in memory one each), or {naming.name('prompts_from_names')}"
        )


def without_prompt(item: Item) -> Item:
    """The item, as an error if it has no prompt: for rewards that all need one, it is not even decoded."""
    if item.prompt or item.error is not None:
        return item
    return replace(item, image=None, error=f"{item.file}: {NO_PROMPT}")


def within_length(item: Item) -> Item:
    """The item, as an error if its prompt is longer than any reward reads: nothing is made of it."""
    wrong = too_long(item.prompt or "") if item.error is None else None
    return item if wrong is None else replace(item, image=None, error=f"{item.file}: {wrong}")
