"""A causal language model of a real transformers class with random weights, saved as users have it."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.rewards.tiny_vlm import language, tokenizer

CHAT = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)


def build_llama(folder: Path, *, template: str | None = CHAT) -> Path:
    """Llama with two layers; without a template it is a base model."""
    torch.manual_seed(0)
    words = tokenizer()
    words.chat_template = template
    config = LlamaConfig(**language(len(words)), bos_token_id=3, eos_token_id=2, pad_token_id=0)
    LlamaForCausalLM(config).eval().save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
