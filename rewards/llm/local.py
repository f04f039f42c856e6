"""A language model of transformers on this machine: causal ones, and vision-language ones without images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewards.foreign import ADAPTER, is_short_of_memory, mapping, reading, reason, refuse_code
from rewards.hub import check_repository
from rewards.llm.base import Cut, Heard, Message, Writer
from rewards.weights import align_weights, located

UNFINISHED = "\ufffd"
"""The decoded form of an incomplete letter of several bytes."""


class LocalWriter(nn.Module, Writer):
    """A writer over a model and its tokenizer, on the model's device, `batch` chats a forward.

    Without a chat template the contents are written below each other. `chat` holds more variables for the
    template ({"enable_thinking": False}). With `raw` the contents are continued as they are, for a model that
    knows no chat. `beams` and `length_penalty` are of what is not sampled; what is sampled is one of the
    `top_k` likeliest tokens, or of all. Raises ValueError for a batch or beams below 1, and for a tokenizer
    that has neither a padding token nor an end.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch: int = 8,
        chat: Mapping[str, Any] | None = None,
        raw: bool = False,
        beams: int = 1,
        length_penalty: float = 1.0,
        top_k: int | None = None,
    ) -> None:
        super().__init__()
        if batch < 1 or beams < 1:
            raise ValueError(
                f"got batch={batch}, beams={beams}; expected at least 1; pass the number of chats per "
                "forward pass, and beams=1 for greedy decoding"
            )
        if tokenizer.pad_token is None:
            if tokenizer.eos_token is None:
                raise ValueError(
                    "got a tokenizer without padding and end; expected one of them; set its pad_token"
                )
            tokenizer.pad_token = tokenizer.eos_token
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.batch, self.chat = tokenizer, batch, dict(chat or {})
        self.raw, self.beams, self.length_penalty, self.top_k = raw, beams, length_penalty, top_k
        # Templates of vision-language models may take nothing but lists of parts.
        self.parts = model.config.get_text_config() is not model.config
        added = tokenizer.added_tokens_decoder.values()
        self.control = [token.content for token in added if token.special]
        ends = model.generation_config.eos_token_id
        ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
        if not all(isinstance(end, int) for end in ends):
            raise ValueError(
                f"got eos_token_id={ends!r:.80} of a model; expected numbers; correct the files of the model"
            )
        self.ends = torch.tensor(ends, dtype=torch.long)

    def _write(
        self,
        talks: Sequence[Sequence[Message]],
        tokens: int,
        temperature: float,
        seeds: Sequence[int],
        heard: Heard | None,
        cut: Cut | None,
    ) -> list[str]:
        with reading(self.model.name_or_path, "a language model that answers"):
            texts = [self._text(talk) for talk in talks]
            written: list[str] = []
            for start in range(0, len(texts), self.batch):
                part = texts[start : start + self.batch]
                rows = range(start, start + len(part))
                drawn = _draws([seeds[row] for row in rows], tokens) if temperature else None
                answers = self._batch(part, tokens, drawn, temperature, _Ear(self.tokenizer, rows, heard))
                for row, ended in zip(rows, torch.isin(answers, self.ends).any(1).tolist(), strict=True):
                    if cut is not None and not ended:
                        cut(row)
                decoded = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
                if heard is not None and self._searches(drawn):
                    for row, text in zip(rows, decoded, strict=True):
                        heard(row, text)
                written += decoded
            return written

    def _searches(self, draws: Tensor | None) -> bool:
        """Whether several beams are written at once, of which none can be heard before the best is known."""
        return draws is None and self.beams > 1

    def _batch(
        self, texts: list[str], tokens: int, draws: Tensor | None, temperature: float, ear: _Ear
    ) -> Tensor:
        """B texts -> the tokens written after each (B, L), on the CPU."""
        bos = self.tokenizer.bos_token
        whole = bool(bos) and all(text.startswith(bos) for text in texts)  # the template wrote it already
        inputs = self.tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=not whole
        ).to(self.model.device)
        options: dict[str, Any] = {"do_sample": False, "num_beams": 1, "max_new_tokens": tokens}
        if draws is not None:
            start = inputs["input_ids"].shape[1]
            options["logits_processor"] = [_Draw(draws.to(self.model.device), start, temperature, self.top_k)]
        elif self.beams > 1:
            options |= {"num_beams": self.beams, "length_penalty": self.length_penalty}
        ids = self.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pad_token_id=self.tokenizer.pad_token_id,
            temperature=None,
            top_p=None,
            top_k=None,
            streamer=ear if ear.heard is not None and not self._searches(draws) else None,
            **options,
        )
        answers: Tensor = ids[:, inputs["input_ids"].shape[1] :].cpu()
        return answers

    def _text(self, talk: Sequence[Message]) -> str:
        """The whole prompt of a chat. Raises ValueError if the model's control tokens are in it."""
        for message in talk:
            if written := [token for token in self.control if token in message["content"]]:
                raise ValueError(
                    f"got a message with {written[0]!r}, which steers this model; expected plain text; take "
                    "it out"
                )
        if self.raw:
            return "".join(message["content"] for message in talk)
        if self.tokenizer.chat_template is None:
            return "\n".join([*(message["content"] for message in talk), ""])
        turns = [
            {**message, "content": [{"type": "text", "text": message["content"]}]} if self.parts else message
            for message in talk
        ]
        text: str = self.tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False, **self.chat
        )
        return text


def _draws(seeds: Sequence[int], tokens: int) -> Tensor:
    """(B, tokens) uniform in [0, 1), each row of its own seed."""
    return torch.stack([torch.rand(tokens, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


class _Draw:
    """Leaves only the token that a row's next number falls on, so that what follows is drawn, not greedy."""

    def __init__(self, draws: Tensor, start: int, temperature: float, top_k: int | None = None) -> None:
        self.draws, self.start, self.temperature, self.top_k = draws, start, temperature, top_k

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            least = scores.topk(self.top_k).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        up_to = (scores.float() / self.temperature).softmax(-1).cumsum(-1)
        step = input_ids.shape[1] - self.start
        mark = self.draws[:, step : step + 1] * up_to[:, -1:]
        picked = torch.searchsorted(up_to, mark, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, picked, 0.0)


class _Ear:
    """Receives the tokens of `generate` and passes on whole letters, row by row."""

    def __init__(self, tokenizer: Any, rows: Sequence[int], heard: Heard | None) -> None:
        self.tokenizer, self.rows, self.heard = tokenizer, rows, heard
        self.ids: list[list[int]] = [[] for _ in rows]
        self.passed_on = [0] * len(rows)
        self.begun = False

    def put(self, tokens: Tensor) -> None:
        """The prompts (B, L) first, then a token a row (B,)."""
        if not self.begun:
            self.begun = True
            return
        for ids, token in zip(self.ids, tokens.reshape(-1).tolist(), strict=True):
            ids.append(token)
        self._pass_on(last=False)

    def end(self) -> None:
        """No more tokens come."""
        self._pass_on(last=True)

    def _pass_on(self, last: bool) -> None:
        assert self.heard is not None, "nobody listens"
        for place, ids in enumerate(self.ids):
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            new = text[self.passed_on[place] :]
            if new and (last or not text.endswith(UNFINISHED)):
                self.passed_on[place] = len(text)
                self.heard(self.rows[place], new)


def local_writer(
    weights: str,
    *,
    dtype: str = "auto",
    device_map: str | None = None,
    batch: int = 8,
    chat: Mapping[str, Any] | None = None,
    raw: bool = False,
    beams: int = 1,
    length_penalty: float = 1.0,
    top_k: int | None = None,
) -> LocalWriter:
    """The writer of a folder, of $T2IALIGN_WEIGHTS/NAME, or of a Hub id "org/name[@revision]".

    A folder may hold a LoRA of peft alone, which names its model. Safetensors only. The settings from `batch`
    on are those of `LocalWriter`. Raises ValueError for a model that is not there or is none that writes
    text, and as `LocalWriter` does.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

    source, revision = located(weights)
    common: dict[str, Any] = {"trust_remote_code": False, **({"revision": revision} if revision else {})}
    refuse_code(source)
    try:
        check_repository(source, "config.json", revision)
        base = _base_of(source)
        config = (
            AutoConfig.from_pretrained(base, trust_remote_code=False)
            if base
            else AutoConfig.from_pretrained(source, **common)
        )
        sees = config.get_text_config() is not config
        auto = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(source, **common)
        model = auto.from_pretrained(
            source, dtype=dtype, device_map=device_map, use_safetensors=True, **common
        )
    except Exception as error:  # a model's files lead libraries to errors of any kind
        if isinstance(error, MemoryError) or is_short_of_memory(error):
            raise
        raise ValueError(
            f"got {source!r}, which does not load ({reason(error)}); expected a causal language model; pass "
            "weights= a folder with its config, safetensors and tokenizer files, or put that folder in "
            "$T2IALIGN_WEIGHTS"
        ) from error
    align_weights(model)
    return LocalWriter(
        model,
        tokenizer,
        batch=batch,
        chat=chat,
        raw=raw,
        beams=beams,
        length_penalty=length_penalty,
        top_k=top_k,
    )


def _base_of(source: str) -> str | None:
    """The model that the LoRA in a folder is of, or None where none lies."""
    file = Path(source) / ADAPTER
    if not file.is_file():
        return None
    base = mapping(file).get("base_model_name_or_path")
    if not isinstance(base, str):
        raise ValueError(f"it names no model in {ADAPTER}")
    return base
