"""The instructions to language models: one preset for each way of asking for a rewrite, as data.

The two presets of PromptEnhancer (arXiv 2509.04545) keep the conventions of its released inference code:
which role the instruction has, what the template is told, how long and how greedily it writes, how its output
is marked. The words are ours, in English, after its six requirements; the released ones are Chinese. What the
checkpoints make of our words has not been measured: they were not at hand.

Prompt-expansion models follow no instruction. Gustavosta/MagicPrompt-Stable-Diffusion,
daspartho/prompt-extend and succinctly/text2image-prompt-generator continue the prompt, sampled as a
text-generation pipeline of transformers samples GPT-2; microsoft/Promptist is asked as its model card does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from t2ialign.rewriting.intensity import intensity
from t2ialign.rewriting.parse import REPHRASE

STRENGTH = "{intensity}"
"""The mark in a preset's text that the sentence of the intensity replaces."""

_FORM = (
    "First think, in at most 200 words, between <think> and </think>. Then write the new prompt, and nothing "
    "else, between <answer> and </answer>."
)
_GENERAL = f"""You rewrite prompts for an image generator that does what it is told and guesses nothing.

In your thought go through what the user asks for: which things, how many of each, what each looks like, how \
they stand to each other, what must not be there, what text is to be read, which style, and what goes \
without saying. Words that the generator may misread get plain ones; pronouns and hidden counts are spelled \
out.

Your new prompt
- says everything that the user asks for, and nothing against it;
- copies quoted text letter by letter, keeps every number, and says what must be absent as the user does;
- describes only what can be seen, as a fact, without praise and without "the image shows";
- is written in the user's language.
{STRENGTH}

{_FORM}"""
_SIX = f"""You turn a user's prompt for an image generator into a detailed description of the picture.
1. Keep all that the user means: the subject, the action, the number, the style, the layout, the relations, \
the attributes, and the words of any text in the picture.
2. Begin with the picture as a whole, go on to the details, and come back to the whole.
3. Describe what is to be seen, objectively, without feelings or judgements.
4. Take the main subject first, then what is secondary, then the background.
5. Place things by one consistent spatial logic.
6. Close with one sentence on the style.
{STRENGTH}
{_FORM}"""
_SHORT = (
    "Think step by step about what the picture of the user's prompt has to show, then rewrite the prompt so "
    f"that an image generator shows it. {STRENGTH} The user's prompt:\n"
)


@dataclass(frozen=True)
class Preset:
    """One way to ask a language model for a rewrite, and the form of its outputs."""

    system: str = ""
    """The system message, if any."""
    prefix: str = ""
    """The text before the prompt in the user's turn."""
    suffix: str = ""
    """The text after the prompt in the user's turn."""
    convention: str = "tags"
    """The form of the outputs, one of `parse.CONVENTIONS`."""
    tokens: int = 1024
    """The maximum length of an output in tokens."""
    temperature: float = 0.0
    """The temperature of the first try; 0 is greedy."""
    chat: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the chat template."""
    raw: Mapping[str, Any] | None = None
    """Options of the search of `LocalWriter`, for a model that continues text and knows no chat."""
    survival: bool = True
    """Whether the rewrite is checked for what must survive; not where a rewriter is to replace the words."""

    @property
    def takes_intensity(self) -> bool:
        """Whether it says how much a rewrite may add."""
        return STRENGTH in self.system + self.prefix

    def messages(self, prompt: str, strength: str) -> list[dict[str, str]]:
        """The chat for one prompt. Raises ValueError for an unknown intensity."""
        sentence = intensity(strength).instruction
        system, prefix = (text.replace(STRENGTH, sentence) for text in (self.system, self.prefix))
        if self.raw is not None:
            prompt = prompt.strip()  # a blank at the end is a token that no text goes on from
        user = {"role": "user", "content": prefix + prompt + self.suffix}
        return [{"role": "system", "content": system}, user] if system else [user]


PRESETS = {
    "general": Preset(system=_GENERAL),
    "promptenhancer-7b": Preset(system=_SIX, tokens=512, chat={"enable_thinking": False}),
    "promptenhancer-32b": Preset(prefix=_SHORT, tokens=2048, convention="last_think"),
    "magicprompt": Preset(convention="continuation", tokens=75, temperature=1.0, raw={"top_k": 50}),
    "promptist": Preset(
        suffix=REPHRASE, convention="rephrase", tokens=75, raw={"beams": 8, "length_penalty": -1.0}
    ),
    "trained": Preset(),
    # The toy rewriter knows 192 positions, of prompt and output together.
    "toy": Preset(tokens=128, survival=False),
}
"""general: any instruction model. magicprompt, promptist: those prompt-expansion models. trained: the prompt
alone, as `train` leaves a model. toy: the toy world's, whose task is to put the generator's words in
place of the user's.
"""
