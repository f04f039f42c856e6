"""The layers that get a LoRA by default."""

UNET = ("to_q", "to_k", "to_v", "to_out.0")
"""The attention of a U-Net of diffusers."""

SCORER = (
    *("q_proj", "k_proj", "v_proj", "out_proj", "o_proj"),  # CLIP and language models of transformers
    *("query", "key", "value", "qkv"),  # BERT and BLIP
    *("c_fc", "c_proj"),  # open_clip, whose attention is one fused layer
)
"""Last names of linear layers, where the network has them."""
