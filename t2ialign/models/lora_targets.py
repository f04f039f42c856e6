"""The layers that get a LoRA by default."""

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""The attention of a network of diffusers."""

JOINT = tuple(f"attn.{name}" for name in (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"))
"""The joint attention over image and text of a transformer of diffusers, as its training script for SD3 has
it. SD3.5-M's second attention, attn2, is not among them."""

JOINT_AND_MLP = (
    *JOINT,
    *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
)
"""`JOINT` and the MLPs beside it, as diffusers' training script for FLUX.1 has it."""

SCORER = (
    *("q_proj", "k_proj", "v_proj", "out_proj", "o_proj"),  # CLIP and language models of transformers
    *("query", "key", "value", "qkv"),  # BERT and BLIP
    *("c_fc", "c_proj"),  # open_clip, whose attention is one fused layer
)
"""Last names of linear layers, where the network has them."""
