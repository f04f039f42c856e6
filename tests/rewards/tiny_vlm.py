"""Vision-language models of real transformers classes with tiny random networks, saved as users have them."""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipImageProcessor,
    CLIPVisionConfig,
    GemmaConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessor,
    LlavaProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    SiglipImageProcessor,
    SiglipVisionConfig,
    T5Config,
)

WORDS = (
    "yes Yes YES no No NO Does this figure show a red blue circle square ? Please answer or . Final Score :"
)
TEXTS = [WORDS, " ".join(reversed(WORDS.split())), "yes\nYes\nYES\nno\nNo\nNO\n"] * 20

TURN = "{{ '<|start|>' + message['role'] + '\n' }}"
PART = "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    + TURN
    + "{% for part in message['content'] %}"
    + PART
    + "{% endfor %}"
    "{{ '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)


def tokenizer(*extra: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which yes, Yes, YES, no, No and NO are tokens, each with and without a space before.

    It begins every text with <|bos|>, as Llama's does.
    """
    byte_level = Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|start|>", "<|end|>", "<|bos|>", *extra]
    trainer = trainers.BpeTrainer(
        vocab_size=600 + len(extra),
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    byte_level.train_from_iterator(TEXTS, trainer)
    bos = ("<|bos|>", byte_level.token_to_id("<|bos|>"))
    byte_level.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[bos])
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level, bos_token="<|bos|>", eos_token="<|end|>", pad_token="<|pad|>"
    )


def language(vocabulary: int) -> dict:
    """What all tiny language models have in common. Large initial weights: answers differ visibly."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
    }


def save(model, processor, folder: Path) -> Path:
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def build_llava(folder: Path, *, size: int = 28) -> Path:
    """CLIP vision tower, Llama; square images of `size` pixels in patches of 14."""
    torch.manual_seed(0)
    words = tokenizer("<image>")
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        projection_dim=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=size,
        patch_size=14,
        initializer_range=0.3,
    )
    patches = (size // 14) ** 2
    text = {**language(len(words)), "max_position_embeddings": 512 + patches}
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**text, bos_token_id=3, eos_token_id=2, pad_token_id=0),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=patches,
    )
    processor = LlavaProcessor(
        LlavaImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size}),
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "{{ '<image>\n' }}"),
    )
    return save(LlavaForConditionalGeneration(config), processor, folder)


def build_qwen(folder: Path) -> Path:
    """Qwen2-VL: rotary positions of three axes, as many image tokens as the image has patches."""
    torch.manual_seed(0)
    words = tokenizer("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = Qwen2VLConfig(
        text_config={**language(len(words)), "rope_parameters": rope, "bos_token_id": 3, "eos_token_id": 2},
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 4,
            "mlp_ratio": 2,
            "patch_size": 14,
        },
        image_token_id=words.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    sizes = {"size": {"shortest_edge": 56 * 56, "longest_edge": 84 * 84}}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(**sizes),
        words,
        Qwen2VLVideoProcessor(**sizes),
        chat_template=TEMPLATE.replace("IMAGE", "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"),
    )
    return save(Qwen2VLForConditionalGeneration(config), processor, folder)


def build_paligemma(folder: Path) -> Path:
    """PaliGemma: no chat template, and a prefix that attends both ways."""
    torch.manual_seed(0)
    words = tokenizer(
        "<image>", *(f"<loc{i:04}>" for i in range(1024)), *(f"<seg{i:03}>" for i in range(128))
    )
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=28,
        patch_size=14,
        vision_use_head=False,
    )
    config = PaliGemmaConfig(
        vision_config=vision,
        text_config=GemmaConfig(
            **language(len(words)), head_dim=8, pad_token_id=0, bos_token_id=3, eos_token_id=2
        ),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    images = SiglipImageProcessor(size={"height": 28, "width": 28}, image_seq_length=4)
    images.image_seq_length = 4
    return save(PaliGemmaForConditionalGeneration(config), PaliGemmaProcessor(images, words), folder)


def build_blip(folder: Path) -> Path:
    """BLIP-2 on T5: an encoder reads image and question, a decoder answers."""
    torch.manual_seed(0)
    words = tokenizer("<image>")
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = T5Config(
        vocab_size=len(words),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        initializer_factor=2.0,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=2,
    )
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**size, image_size=28, patch_size=14, initializer_range=0.3),
        qformer_config=Blip2QFormerConfig(**size, encoder_hidden_size=32, vocab_size=len(words)),
        text_config=text,
        num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    words.image_token = "<image>"
    processor = Blip2Processor(
        BlipImageProcessor(size={"height": 28, "width": 28}), words, num_query_tokens=4
    )
    return save(Blip2ForConditionalGeneration(config), processor, folder)


FAMILIES = {"llava": build_llava, "qwen": build_qwen, "paligemma": build_paligemma, "blip": build_blip}
PLAIN = {
    "paligemma": {"plain": "<image>answer en {question}"},
    "blip": {"plain": "Question: {question} Answer:"},
}
