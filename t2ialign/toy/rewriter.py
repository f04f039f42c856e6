"""The toy world's rewriter before it has learnt anything: a small Llama and its byte-level tokenizer.

It speaks through a chat template like any instruction model, and marks what it writes with <think> and
<answer>, so every tool for language models runs on it as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from t2ialign.toy.phrasings import Phrasing

THINK, ANSWER = ("<think>", "</think>"), ("<answer>", "</answer>")
PAD, END, USER = "<|pad|>", "<|end|>", "<|user|>"
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}" + USER + "{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] }}" + END + "{% endif %}"
    "{% endfor %}"
)
"""A system message is left out: there is one task."""
VOCABULARY = 640
POSITIONS = 192
SIZES: dict[str, int] = {
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}


def build_tokenizer(texts: Iterable[str]) -> Any:
    """A byte-level BPE tokenizer of these texts, with a chat template; it can write any text at all."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, USER],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # One token each, but not special: what decodes an answer leaves special ones out.
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in (*THINK, *ANSWER)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        model_max_length=POSITIONS,
    )
    wrapped.chat_template = TEMPLATE
    return wrapped


def build_model(tokenizer: Any, seed: int = 0) -> Any:
    """A Llama of random weights for that tokenizer, 0.6 million parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **SIZES,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def output_of(phrasing: Phrasing, *, thought: bool = True) -> str:
    """The output that a rewriter should write for a phrasing; without the thought, the answer alone."""
    answer = f"{ANSWER[0]}{phrasing.caption}{ANSWER[1]}"
    return f"{THINK[0]}{phrasing.thought}{THINK[1]}{answer}" if thought else answer
