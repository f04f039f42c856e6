"""From a name to a rewriter: rules, the toy one, a folder, a Hub id, or a model behind an endpoint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewards.renamed import current
from t2ialign.rewriting.instructions import PRESETS, Preset
from t2ialign.rewriting.intensity import intensity
from t2ialign.rewriting.rewriter import Rewriter
from t2ialign.rewriting.rules import Rules

if TYPE_CHECKING:
    from rewards.llm.base import Heard

RULES, TOY = "rules", "toy"
ASSET = "toy-rewriter"
DEFAULT = "medium"
"""The intensity where none is named."""
SMALL = (
    "Qwen/Qwen2.5-0.5B-Instruct (0.5 billion parameters, Apache-2.0)",
    "Qwen/Qwen2.5-1.5B-Instruct (1.5 billion, Apache-2.0)",
    "HuggingFaceTB/SmolLM2-1.7B-Instruct (1.7 billion, Apache-2.0)",
)
"""Instruction models to begin with, by the size and licence of their model cards."""
TOLD = ("tokens", "chat", "extra", "dtype")
"""Options that change the output; the others change its speed, or where it is computed."""
MAPPINGS = ("chat", "extra")


@dataclass(frozen=True)
class Choice:
    """A named rewriter and its settings, which fit each other; `load` opens its model."""

    name: str
    url: str | None = None
    preset: Preset | None = None
    """None for the rules."""
    preset_name: str | None = None
    strength: str = DEFAULT
    temperature: float | None = None
    seed: int = 0
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """Its name and every setting that changes what it writes, but for the seed, on one line."""
        settings: dict[str, Any] = {"preset": self.preset_name}
        if self.preset is None or self.preset.takes_intensity:
            settings["intensity"] = self.strength
        settings |= {"temperature": self.temperature}
        settings |= {key: value for key, value in self.options if key in TOLD}
        return " ".join(
            [self.name, *(f"{key}={value}" for key, value in settings.items() if value is not None)]
        )

    @property
    def asks(self) -> dict[str, Any]:
        """The keywords for `rewriter.rewrite`: its convention, and whether survival is checked."""
        preset = self.preset or Preset()
        return {"convention": preset.convention, "survival": preset.survival}

    def load(self, heard: Heard | None = None) -> Rewriter:
        """The rewriter; a model goes to the GPUs if there are any.

        Raises ValueError as `llm.writer` does, and for an instruction to a model that knows no chat.
        """
        if self.preset is None:
            return Rules(self.strength, self.seed)
        from rewards.llm.choose import writer
        from t2ialign.rewriting.language import Language

        made = writer(_folder(self.name, self.url), self.url, **self._options())
        if self.preset.takes_intensity and getattr(made, "tokenizer", None) is not None:
            self._check_chat(made)
        return Language(made, self.preset, self.strength, self.temperature, self.seed, heard=heard)

    def _check_chat(self, made: Any) -> None:
        """A base model would go on with the instruction, and what it writes would be taken for a rewrite."""
        if made.tokenizer.chat_template is None:
            raise ValueError(
                f"got rewriter {self.name!r} without a chat template, and preset {self.preset_name}, which "
                "instructs it; expected an instruction model; name one, or choose the preset of this model: "
                "magicprompt if it continues prompts, trained if t2ialign train has fine-tuned it"
            )

    def _options(self) -> dict[str, Any]:
        options = {key: value for key, value in self.options if key != "tokens"}
        told = {**(self.preset.chat if self.preset else {})}
        if self.url is not None:
            return {"extra": {"chat_template_kwargs": told}, **options} if told else options
        from rewards.device import default_device

        if default_device().type != "cpu":
            options.setdefault("device_map", "auto")
        if self.preset is not None and self.preset.raw is not None:
            return {**options, "raw": True, **self.preset.raw}
        return {**options, "chat": {**told, **options.get("chat", {})}}


def choose(
    name: str,
    *,
    url: str | None = None,
    preset: str | None = None,
    strength: str | None = None,
    temperature: float | None = None,
    seed: int = 0,
    **options: Any,
) -> Choice:
    """A rewriter by name: "rules", "toy", a folder or Hub id, or with `url` the model served so there.

    preset: of `PRESETS`, by default "general". strength: an intensity. temperature: of the first try.
    options: tokens (the longest output), and those of `llm.writer`. Nothing is loaded. Raises ValueError for
    what does not fit together, an unknown name, preset or intensity, and a toy rewriter that is not
    there.
    """
    for key in MAPPINGS:
        _check_mapping(key, options.get(key, {}))
    name, preset = current(name), preset and current(preset)
    given = {"preset": preset, "url": url, "temperature": temperature, **options}
    if name == RULES:
        _refuse(name, given)
        intensity(strength or DEFAULT)
        return Choice(name, strength=strength or DEFAULT, seed=seed)
    if name == TOY:
        _refuse(name, {"preset": preset, "url": url})
        preset = TOY
    preset = preset or "general"
    if preset not in PRESETS:
        raise ValueError(f"got preset {preset!r}; expected one of {', '.join(PRESETS)}; choose one")
    if strength is not None and not PRESETS[preset].takes_intensity:
        _refuse(name if name == TOY else f"preset {preset}", {"intensity": strength})
    if PRESETS[preset].raw is not None:
        _refuse(f"preset {preset}", {"url": url, "chat": options.get("chat")})
    intensity(strength or DEFAULT)
    _folder(name, url)
    return Choice(
        name,
        url,
        _with_tokens(PRESETS[preset], options.get("tokens")),
        None if name == TOY else preset,
        strength or DEFAULT,
        temperature,
        seed,
        tuple(options.items()),
    )


def _refuse(what: str, given: dict[str, Any]) -> None:
    if names := [key for key, value in given.items() if value is not None]:
        raise ValueError(f"got {', '.join(names)} for {what}, which has no such setting; drop it")


def _check_mapping(key: str, value: Any) -> None:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"got {key}={value!r}; expected names and values; write {key}={{NAME: VALUE}}")


def _with_tokens(preset: Preset, tokens: Any) -> Preset:
    if tokens is None:
        return preset
    if not isinstance(tokens, int) or tokens < 1:
        raise ValueError(f"got tokens={tokens!r}; expected a whole number from 1; correct it")
    return replace(preset, tokens=tokens)


def _folder(name: str, url: str | None) -> str:
    """The name by which the writer is opened. Raises ValueError for a name that nothing here can have."""
    if url is not None:
        return name
    if name == TOY:
        from rewards.assets import folder

        return str(folder(ASSET))
    from rewards.weights import HUB_ID, located

    path, _ = located(name)
    if not Path(path).is_dir() and not HUB_ID.fullmatch(name):
        raise ValueError(
            f"got rewriter {name!r}; expected rules, toy, a folder of transformers or a Hub id org/name; "
            "check the spelling, or name with url= who serves it"
        )
    return name
