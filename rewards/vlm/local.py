"""The judge over any image-text-to-text model of transformers, on this machine."""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rewards.foreign import is_short_of_memory, reason, refuse_code
from rewards.hub import check_repository
from rewards.llm.base import Cut
from rewards.vlm.base import DEFAULT, MARKS, NO, YES, Judge, to_pil
from rewards.vlm.prefix import shared_logits
from rewards.weights import align_weights, located

log = logging.getLogger(__name__)


def token_ids(tokenizer: Any, words: Sequence[str]) -> list[int]:
    """Ids of the single tokens that spell one of the words in any case, with or without a space before.

    Raises ValueError when there is none.
    """
    wanted, special = {word.casefold() for word in words}, set(tokenizer.all_special_ids)
    ids_of_words = {
        index for token, index in tokenizer.get_vocab().items() if token.lstrip(MARKS).casefold() in wanted
    }
    for text in (form for word in words for form in (word, f" {word}")):  # words that are not ASCII
        ids = tokenizer.encode(text, add_special_tokens=False)
        ids_of_words |= set(ids) if len(ids) == 1 else set()
    if not ids_of_words - special:
        raise ValueError(
            f"got a tokenizer with no token for {' or '.join(words)}; expected one; pass yes= and no= words "
            "that are single tokens of this model"
        )
    return sorted(ids_of_words - special)


class LocalJudge(nn.Module, Judge):
    """A judge over a transformers image-text-to-text model and its processor, on the device of the model.

    pixels="uint8" rounds images to 8 bits and gives PIL images to the processor, as files would be scored;
    pixels="float" keeps gradients from the log-probabilities to the images, for processors that work on
    tensors. `chat` holds more variables for the chat template ({"enable_thinking": False}); `plain` is the
    whole text with "{question}" in it for a model without a chat template; `opening` begins the model's
    answer. With `share` several questions about one image follow a single reading of it, where the model
    allows that. Raises ValueError for words that are no tokens, or for a processor without a chat template
    and no `plain`.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        yes: Sequence[str] = YES,
        no: Sequence[str] = NO,
        pixels: Literal["uint8", "float"] = "uint8",
        batch: int = 8,
        chat: Mapping[str, Any] | None = None,
        plain: str | None = None,
        opening: str = "",
        share: bool = True,
    ) -> None:
        super().__init__()
        if processor.chat_template is None and "{question}" not in (plain or ""):
            raise ValueError(
                "got a processor without a chat template; expected one, or plain= with the model's text "
                "around {question}, such as plain='<image>answer en {question}'"
            )
        if pixels not in ("uint8", "float"):
            raise ValueError(f"got pixels={pixels!r}; expected 'uint8' or 'float'; pass one of them")
        if batch < 1:
            raise ValueError(
                f"got batch={batch}; expected at least 1; pass the number of questions per forward pass"
            )
        self.model = model.eval().requires_grad_(False)
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.pixels, self.batch, self.plain, self.opening = pixels, batch, plain, opening
        self.chat, self.share, self.tried = dict(chat or {}), share, False
        self.yes, self.no = token_ids(self.tokenizer, yes), token_ids(self.tokenizer, no)
        if both := set(self.yes) & set(self.no):
            raise ValueError(
                f"got tokens {sorted(both)} as yes and as no; expected disjoint words; change one"
            )
        added = self.tokenizer.added_tokens_decoder.values()
        self.control = [token.content for token in added if token.special]
        config = model.config.get_text_config()
        self.decodes = bool(model.config.is_encoder_decoder or config.is_encoder_decoder)
        self.start = model.generation_config.decoder_start_token_id
        if self.decodes and self.start is None:
            self.start = config.decoder_start_token_id
        takes = inspect.signature(model.forward).parameters
        # Logits of a whole prompt are gigabytes: most families can be told to compute the last ones only.
        self.lean: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    def _answer(self, images: Tensor, questions: Sequence[str], rows: list[int]) -> Tensor:
        gradient = self.pixels == "float" and torch.is_grad_enabled() and images.requires_grad
        # What is shared is copied for each question, and what has a gradient cannot be copied so.
        trained = torch.is_grad_enabled() and any(weight.requires_grad for weight in self.model.parameters())
        if not gradient and not trained and self._can_share(images, questions, rows):
            answers = images.new_zeros(len(questions), 2, dtype=torch.float32)
            for row in dict.fromkeys(rows):
                places = [j for j, other in enumerate(rows) if other == row]
                answers[places] = self._shared(images[row : row + 1], [questions[j] for j in places]).to(
                    answers
                )
            return answers
        return self._whole(images, questions, rows, gradient).to(images.device)

    def _whole(
        self, images: Tensor, questions: Sequence[str], rows: Sequence[int], gradient: bool = False
    ) -> Tensor:
        """(Q, 2), each prompt read from its beginning."""
        answers = [torch.zeros(0, 2, device=self.model.device)]
        for part, inputs in self._batches(images, questions, rows):
            if gradient:
                inputs["pixel_values"] = self._with_gradient(images[part], inputs["pixel_values"])
            answers.append(self._summed(self.model(**self._placed(inputs), **self.lean).logits[:, -1]))
        return torch.cat(answers)

    def _shared(self, image: Tensor, questions: Sequence[str]) -> Tensor:
        """image (1, 3, H, W) -> (Q, 2), what the prompts have in common being read once."""
        texts = [self._text(question) for question in questions]
        first = self._placed(self._inputs(self._pil_images(image), questions[:1]))
        ids = self.tokenizer(texts, **self._special(texts))["input_ids"]
        pad = self.tokenizer.pad_token_id or 0
        logits = shared_logits(self.model, first, ids, batch=self.batch, pad=pad, lean=self.lean)
        return self._summed(logits)

    @torch.no_grad()
    def _can_share(self, images: Tensor, questions: Sequence[str], rows: list[int]) -> bool:
        """Whether some image has several questions, and the model answers them so as it does whole prompts.

        Tried once, on the first two: models that look ahead in their prompt do not, and are read in full.
        """
        twice = next((row for row, n in Counter(rows).items() if n > 1), None) if self.share else None
        if twice is None or self.decodes:
            return False
        if not self.tried:
            self.tried = True
            image = images[twice : twice + 1]
            two = [text for text, row in zip(questions, rows, strict=True) if row == twice][:2]
            whole = self._whole(image, two, [0, 0])
            limit = 1e-3 if self.model.dtype in (torch.float32, torch.float64) else 0.1
            try:
                error = float((self._shared(image, two) - whole).abs().max())
                self.share, reason = error <= limit, f"answers would move by {error:.2g}"
            except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as trouble:
                self.share, reason = False, f"{type(trouble).__name__}: {trouble}"
            if not self.share:
                log.warning("each question is read with its whole prompt, which is slower (%s)", reason)
        return self.share

    def _summed(self, logits: Tensor) -> Tensor:
        """Logits (n, V) of first answer tokens -> (n, 2) log P(yes), log P(no)."""
        logs = logits.float().log_softmax(-1)
        return torch.stack([logs[:, ids].logsumexp(-1) for ids in (self.yes, self.no)], dim=-1)

    def _write(
        self, images: Tensor, questions: Sequence[str], rows: list[int], tokens: int, cut: Cut | None
    ) -> list[str]:
        written: list[str] = []
        prompt = "decoder_input_ids" if self.decodes else "input_ids"
        for _, inputs in self._batches(images, questions, rows):
            greedy = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}
            ids = self.model.generate(**self._placed(inputs), max_new_tokens=tokens, **greedy)
            ids = ids[:, inputs[prompt].shape[1] :]
            for row, ended in enumerate(self._ended(ids), len(written)):
                if cut is not None and not ended:
                    cut(row)
            written += self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [self.opening + text for text in written]

    def _ended(self, ids: Tensor) -> list[bool]:
        """Tokens written (n, L) -> whether the model ended each answer itself."""
        eos = self.model.generation_config.eos_token_id
        ends = [*(eos if isinstance(eos, list) else [eos]), self.tokenizer.eos_token_id]
        known = torch.tensor([end for end in ends if end is not None], dtype=torch.long)
        return [bool(ended) for ended in torch.isin(ids.cpu(), known).any(1)]

    def _pil_images(self, images: Tensor) -> list[Any]:
        return to_pil(images) if self.pixels == "uint8" else list(images.detach().clamp(0, 1))

    def _batches(
        self, images: Tensor, questions: Sequence[str], rows: Sequence[int]
    ) -> Iterator[tuple[list[int], Any]]:
        """(rows, processed inputs) of one forward each."""
        pil_images = self._pil_images(images)
        for start in range(0, len(questions), self.batch):
            part = list(rows[start : start + self.batch])
            texts = questions[start : start + self.batch]
            yield part, self._inputs([pil_images[row] for row in part], texts)

    def _inputs(self, images: list[Any], questions: Sequence[str]) -> Any:
        texts = [self._text(question) for question in questions]
        side = "right" if self.decodes else "left"  # the next token follows the last, but not in an encoder
        text_options = {"padding": True, "padding_side": side, **self._special(texts)}
        rescale = {"do_rescale": False} if self.pixels == "float" else {}
        inputs = self.processor(
            text=texts,
            images=[[image] for image in images],
            text_kwargs=text_options,
            images_kwargs=rescale,
            return_tensors="pt",
        )
        inputs.pop("labels", None)  # PaliGemma's makes them for every text, and its model a loss
        if self.decodes:
            inputs["decoder_input_ids"] = torch.full((len(texts), 1), self.start)
        return inputs

    def _special(self, texts: Sequence[str]) -> dict[str, Any]:
        """Options of the tokenizer: it must add no first token where the chat template writes it."""
        bos = self.tokenizer.bos_token
        return {"add_special_tokens": False} if bos and all(t.startswith(bos) for t in texts) else {}

    def _text(self, question: str) -> str:
        """The whole prompt of one question. Raises ValueError if the model's control tokens are in it."""
        if written := [token for token in self.control if token in question]:
            raise ValueError(
                f"got a question with {written[0]!r}, which steers this model; expected plain text; take it "
                "out"
            )
        if self.processor.chat_template is None:
            assert self.plain is not None, "checked when the judge was made"
            return self.plain.replace("{question}", question) + self.opening
        talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        text: str = self.processor.apply_chat_template(
            talk, add_generation_prompt=True, tokenize=False, **self.chat
        )
        return text + self.opening

    def _with_gradient(self, images: Tensor, processed: Tensor) -> Tensor:
        """The processor's pixels of (n, 3, H, W), connected to them; its other outputs have no gradient."""
        name = type(self.processor.image_processor).__name__
        refusal = (
            f"got {name}, which does not carry gradients; expected a processor on tensors; use a family with "
            "a torchvision image processor, or pixels='uint8' without gradients"
        )
        try:
            again: Tensor = self.processor.image_processor(
                [[image] for image in images.clamp(0, 1)], do_rescale=False, return_tensors="pt"
            )["pixel_values"]
        except RuntimeError as error:  # what torch raises when it is asked for the array of such a tensor
            raise ValueError(refusal) from error
        if not again.requires_grad or again.shape != processed.shape:
            raise ValueError(refusal)
        if not torch.allclose(again.detach(), processed.to(again), atol=1e-5):
            raise ValueError(
                f"got {name}, which treats pixels otherwise alone than within its processor; expected the "
                "same; use pixels='uint8'"
            )
        return again

    def _placed(self, inputs: Any) -> Any:
        """Move tensors to the model's device, floating-point ones in its precision."""
        return inputs.to(self.model.device, self.model.dtype)


def local_judge(
    weights: str | None = None, *, dtype: str = "auto", device_map: str | None = None, **options: Any
) -> LocalJudge:
    """The judge of a folder, of $T2IALIGN_WEIGHTS/NAME, or of a Hub id "org/name[@revision]".

    Safetensors only; `options` are those of `LocalJudge`. Raises ValueError for a model that is not there or
    is no such model.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    source, revision = located(weights or DEFAULT)
    common: dict[str, Any] = {"trust_remote_code": False, **({"revision": revision} if revision else {})}
    refuse_code(source)
    try:
        check_repository(source, "config.json", revision)
        processor = AutoProcessor.from_pretrained(source, **common)
        model = AutoModelForImageTextToText.from_pretrained(
            source, dtype=dtype, device_map=device_map, use_safetensors=True, **common
        )
    except Exception as error:  # a model's files lead libraries to errors of any kind
        if isinstance(error, MemoryError) or is_short_of_memory(error):
            raise
        raise ValueError(
            f"got {source!r}, which does not load ({reason(error)}); expected an "
            "image-text-to-text model; pass weights= a folder with its config, safetensors and processor "
            "files, or put that folder in $T2IALIGN_WEIGHTS"
        ) from error
    align_weights(model)
    return LocalJudge(model, processor, **options)
