"""Tests: diffusers reads our single files back, and full-size ones have as many tensors as released files."""

import json
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from t2ialign.models.single.layout import to_original, unet_name, unet_to_original

SD1_UNET = {"sample_size": 64, "cross_attention_dim": 768}
SD2_UNET = {
    "sample_size": 96,
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def full_size(unet: dict, text_2: bool = False, hidden_act: str = "quick_gelu") -> SimpleNamespace:
    """The networks of a published pipeline, without memory behind their weights."""
    small = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    wide = {"hidden_size": 1024, "num_hidden_layers": 23, "num_attention_heads": 16}
    with torch.device("meta"):
        parts = {
            "unet": UNet2DConditionModel(**unet),
            "vae": AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
            ),
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(**(wide if hidden_act == "gelu" else small), hidden_act=hidden_act)
            ),
        }
        if text_2:
            giant = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20}
            parts["text_encoder_2"] = CLIPTextModelWithProjection(
                CLIPTextConfig(**giant, projection_dim=1280)
            )
    return SimpleNamespace(**parts)


# Released files hold 686 (SDXL 1680) tensors of the U-Net, 248 of the VAE and, beside position ids, 196 of
# OpenAI's encoder; open_clip has 12 tensors a layer and 4 outside, and a projection.
@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({"unet": SD1_UNET}, {"model.": 686, "first_stage_model.": 248, "cond_stage_model.": 196}),
        (
            {"unet": SD2_UNET, "hidden_act": "gelu"},
            {"model.": 686, "first_stage_model.": 248, "cond_stage_model.": 23 * 12 + 4},
        ),
        (
            {"unet": SDXL_UNET, "text_2": True},
            {
                "model.": 1680,
                "first_stage_model.": 248,
                "conditioner.embedders.0.": 196,
                "conditioner.embedders.1.": 32 * 12 + 5,
            },
        ),
    ],
    ids=["sd1", "sd2", "sdxl"],
)
def test_full_size_models_have_as_many_tensors_as_released_files(options, counts):
    names = list(to_original(full_size(**options)))
    assert {prefix: sum(n.startswith(prefix) for n in names) for prefix in counts} == counts
    assert len(names) == sum(counts.values())


def test_published_names_are_where_diffusers_looks_for_them():
    """Names from which diffusers tells the families apart, with the shapes that published files have."""
    sd1, sd2 = to_original(full_size(SD1_UNET)), to_original(full_size(SD2_UNET, hidden_act="gelu"))
    sdxl = to_original(full_size(SDXL_UNET, text_2=True))
    assert sd1["model.diffusion_model.output_blocks.11.0.skip_connection.weight"].shape == (320, 640, 1, 1)
    assert sd1["first_stage_model.encoder.mid.attn_1.q.weight"].shape == (512, 512, 1, 1)
    key = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
    assert sd2[key].shape == (320, 1024)
    assert sd2["cond_stage_model.model.transformer.resblocks.22.attn.in_proj_weight"].shape == (3072, 1024)
    assert sdxl["conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"].shape == (1280,)
    assert sdxl["model.diffusion_model.label_emb.0.0.weight"].shape == (1280, 2816)
    assert sdxl["model.diffusion_model.output_blocks.2.2.conv.weight"].shape == (1280, 1280, 3, 3)
    assert sdxl["model.diffusion_model.output_blocks.5.2.conv.weight"].shape == (640, 640, 3, 3)


def reads_back(pipe, folder, cls) -> None:
    """diffusers reads the single file of `pipe` with the configs of its folder, to the last bit."""
    save_file(to_original(pipe), folder / "one.safetensors")
    index = json.loads((folder / "model_index.json").read_text())
    back = cls.from_single_file(
        str(folder / "one.safetensors"), config=str(folder), local_files_only=True, safety_checker=None
    )
    for name in [part for part in ("unet", "vae", "text_encoder", "text_encoder_2") if part in index]:
        expected, got = getattr(pipe, name).state_dict(), getattr(back, name).state_dict()
        assert expected.keys() == got.keys()
        for key, value in expected.items():
            assert torch.equal(value, got[key]), (name, key)


def test_diffusers_reads_our_sd1_file_back(tiny_sd, tmp_path):
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    pipe.save_pretrained(tmp_path)
    reads_back(pipe, tmp_path, StableDiffusionPipeline)


def test_diffusers_reads_our_sd2_file_back(tiny_sd, tmp_path):
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    pipe.text_encoder.config.hidden_act = "gelu"
    pipe.save_pretrained(tmp_path)
    names = to_original(pipe)
    assert "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_bias" in names
    reads_back(pipe, tmp_path, StableDiffusionPipeline)


def test_diffusers_reads_our_sdxl_file_back(tiny_sdxl, tmp_path):
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    pipe.save_pretrained(tmp_path)
    reads_back(pipe, tmp_path, StableDiffusionXLPipeline)


def test_a_deeper_network_is_named_as_diffusers_names_it():
    """Three ResNets a block and two transformers at a place: our names lead diffusers back to its own."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 16),
        layers_per_block=3,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=8,
        transformer_layers_per_block=[1, 2, 3],
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )
    weights = {"model.diffusion_model." + name: value for name, value in unet_to_original(unet).items()}
    back = convert_ldm_unet_checkpoint(weights, unet.config)
    assert back.keys() == unet.state_dict().keys()
    assert all(
        back[name] is value or torch.equal(back[name], value) for name, value in unet.state_dict().items()
    )


def test_adapters_and_other_networks_are_refused_by_name(tiny_sd):
    unet = UNet2DConditionModel.from_pretrained(tiny_sd, subfolder="unet")
    with pytest.raises(ValueError, match=r"'class_embedding.linear_1.weight'.*plain Stable Diffusion"):
        unet_name("class_embedding.linear_1.weight", unet.config)
    with pytest.raises(ValueError, match=r"to_q\.base_layer.*an adapter"):
        unet_name("mid_block.attentions.0.transformer_blocks.0.attn1.to_q.base_layer.weight", unet.config)
    with pytest.raises(ValueError, match="layers_per_block"):
        unet_name("conv_in.weight", SimpleNamespace(layers_per_block=[1, 2]))
