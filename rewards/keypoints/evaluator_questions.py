"""Questions to a judge about a key point: yes or no, or in writing with accept or reject at the end."""

from __future__ import annotations

from rewards.keypoints.taxonomy import KeyPoint, kinds

SHOWN = (
    "The rule '{name}': {definition} By this rule, and by what can be seen alone, does the image show this: "
    '"{description}"? Please answer yes or no.'
)
PLAUSIBLE = (
    'Look at the bodies, limbs and hands in the image that belong to this: "{description}". Is their '
    "structure plausible, with nothing missing, doubled, melted together or bent as it cannot be? Please "
    "answer yes or no."
)

WRITTEN = """The image was generated from this prompt:
{prompt}

Judge one key point of the prompt and nothing else.
Kind: {name}. {definition}
Key point: {description}
{structure}Go by what can be seen, not by what is likely. First write the reason in one or two sentences. \
Then end with one word: accept if the image satisfies the key point, reject if it does not."""
STRUCTURE = "The bodies, limbs and hands that it is about must be plausible in structure too.\n"
REMINDER = "\nThe answer must end with one of the words accept and reject."


def yes_no(point: KeyPoint) -> list[str]:
    """One question, or two for kinds that ask for plausible structure: both must be answered with yes."""
    templates = [SHOWN, PLAUSIBLE] if _needs_structure(point) else [SHOWN]
    return [_filled(template, point) for template in templates]


def written(prompt: str, point: KeyPoint) -> str:
    """The instruction for a written verdict, in the order of PromptEnhancer's protocol: reason, then word."""
    structure = STRUCTURE if _needs_structure(point) else ""
    return _filled(WRITTEN, point, prompt=prompt, structure=structure)


def _needs_structure(point: KeyPoint) -> bool:
    return "structure" in kinds()[point.kind].criteria


def _filled(template: str, point: KeyPoint, **more: str) -> str:
    """The template with its names replaced in one go: braces in a prompt stay what they are."""
    kind = kinds()[point.kind]
    words = {"name": kind.name, "definition": kind.definition, "description": point.description, **more}
    parts = template.split("{")
    ends = (part.partition("}") for part in parts[1:])
    return parts[0] + "".join(words[name] + rest for name, _, rest in ends)
