"""Rewriters of real transformers classes with tiny networks, overfitted to write what a test needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from t2ialign.rewriting.instructions import PRESETS

END = "<|endoftext|>"
PARTS = (
    "{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}"
)
CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}" + PARTS + "{{ 'END\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}OPEN{% endif %}"
)
"""Like Qwen's; OPEN stands for what a template may write at the beginning of an answer."""
SIZE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}


def tokenizer(texts: Sequence[str], template: str | None) -> PreTrainedTokenizerFast:
    """Byte-level BPE of these texts, without a padding token, as GPT-2 has none."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in ("<|im_start|>", END)]
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    words = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END)
    words.chat_template = template
    return words


def network(kind: str, vocabulary: int) -> Any:
    """A tiny model of a class of transformers, whose outputs end at token 1."""
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    if kind == "GPT2LMHeadModel":
        plain = {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 1024, "vocab_size": vocabulary}
        dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**plain, **dropout, **ends))
    text = {**SIZE, "vocab_size": vocabulary, "head_dim": 8, **ends}
    if kind == "Qwen2_5_VLForConditionalGeneration":
        rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
        vision = {
            "depth": 1,
            "hidden_size": 32,
            "out_hidden_size": 32,
            "num_heads": 4,
            "intermediate_size": 32,
        }
        config = transformers.Qwen2_5_VLConfig(
            text_config={**text, "rope_parameters": rope}, vision_config=vision
        )
        return transformers.Qwen2_5_VLForConditionalGeneration(config)
    config = getattr(transformers, kind.replace("ForCausalLM", "Config"))(**text)
    return getattr(transformers, kind)(config)


def build(folder: Path, kind: str, preset: str, pairs: dict[str, str], *, opened: str | None = "") -> str:
    """A folder with a model that writes these outputs for these prompts under a preset.

    opened: what its template writes at the beginning of an answer; None for a model without a template.
    """
    template = None if opened is None else CHAT.replace("END", END).replace("OPEN", opened)
    talks = [PRESETS[preset].messages(prompt, "medium") for prompt in pairs]
    contents = [message["content"] for talk in talks for message in talk]
    words = tokenizer([*contents, *pairs.values(), "user assistant system think"], template)
    inputs = [
        talk[-1]["content"]
        if template is None
        else words.apply_chat_template(
            talk, tokenize=False, add_generation_prompt=True, **PRESETS[preset].chat
        )
        for talk in talks
    ]
    model = network(kind, len(words))
    _teach(
        model,
        [
            (words(text).input_ids, words(out + END).input_ids)
            for text, out in zip(inputs, pairs.values(), strict=True)
        ],
    )
    model.eval().save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def _teach(model: Any, examples: Sequence[tuple[list[int], list[int]]]) -> None:
    """Until each output is the likeliest text after its prompt, with a margin."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(200):
        total = torch.zeros(())
        for before, after in examples:
            ids, labels = torch.tensor([before + after]), torch.tensor([[-100] * len(before) + after])
            total = total + model(input_ids=ids, labels=labels).loss
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        if total < 0.01:
            return
    raise AssertionError(f"the model has not learned its outputs: loss {total.item():.3f}")
