"""A latent reward in its authors' layout: their formula, every tensor in its place, errors of one line."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, PreTrainedModel

import rewards
from rewards.latent.lrm import LRM
from rewards.latent.saved import save
from rewards.towers.clip_tokenizer import SIZE, clip_tokenizer
from t2ialign.cli.main import main

PROMPTS = ["a red circle!", "two blue squares", "a cross"]
T = torch.tensor([1, 501, 951])
WIDTH = 16


def unet(**overrides) -> UNet2DConditionModel:
    """Stable Diffusion 1's four blocks of two layers, so that the residuals have their published numbers."""
    config = {
        "sample_size": 8,
        "block_out_channels": (8, 16, 16, 24),
        "norm_num_groups": 4,
        "layers_per_block": 2,
        "attention_head_dim": 4,
        "cross_attention_dim": WIDTH,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    }
    return UNet2DConditionModel(**{**config, **overrides})


def text_config(width: int) -> CLIPTextConfig:
    """With the end mark that released configurations name, 2, at which pooling takes the largest token."""
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "projection_dim": width}
    marks = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    return CLIPTextConfig(vocab_size=SIZE, num_hidden_layers=2, num_attention_heads=2, **sizes, **marks)


def write_text(folder: Path, encoder: PreTrainedModel) -> None:
    """As transformers 4.27 wrote it: names under text_model, and the positions beside the weights."""
    encoder.save_pretrained(folder)
    file = folder / "model.safetensors"
    rows = {
        name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}": tensor
        for name, tensor in load_file(file).items()
    }
    rows["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(rows, file, metadata={"format": "pt"})


def write_released(folder: Path, *, xl: bool = False) -> Path:
    """What `save` of the authors' preference model leaves."""
    torch.manual_seed(0)
    if xl:
        network = unet(
            block_out_channels=(8, 16, 24),
            cross_attention_dim=WIDTH + 24,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 24,
        )
        write_text(folder / "text_encoder_2", CLIPTextModelWithProjection(text_config(24)))
    else:
        network = unet()
    network.save_pretrained(folder / "unet")
    write_text(folder / "text_encoder", CLIPTextModel(text_config(WIDTH)))
    widths = [*network.config.block_out_channels, network.config.block_out_channels[-1]]
    visual = nn.Linear(sum(widths), 24 if xl else 12, bias=False)
    state = {"visual_projection": visual.state_dict(), "logit_scale": 2.5}
    if not xl:
        state["text_projection"] = nn.Linear(WIDTH, 12, bias=False).state_dict()
    torch.save(state, folder / "state_dict.pt")
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["sd15", "sdxl"])
def released(request, tmp_path_factory) -> Path:
    return write_released(tmp_path_factory.mktemp("released") / "lrm", xl=request.param)


@pytest.fixture
def copy(tmp_path) -> Path:
    return write_released(tmp_path / "lrm")


def latents() -> Tensor:
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def tokens(*, second: bool = False) -> Tensor:
    """The prompts and behind them the empty one for each, as the authors join them."""
    words = clip_tokenizer(open_clip=second)
    texts = [*PROMPTS, *[""] * len(PROMPTS)]
    return words(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids


@torch.no_grad()
def by_the_authors_formula(folder: Path, guidance_scale: float = 7.5) -> Tensor:
    """Zhang et al. 2025 on the whole networks: residuals 2, 5, 8, 11 and the middle, the only one guided."""
    network = UNet2DConditionModel.from_pretrained(folder / "unet")
    state = torch.load(folder / "state_dict.pt", weights_only=True)
    first = CLIPTextModel.from_pretrained(folder / "text_encoder")
    if xl := (folder / "text_encoder_2").is_dir():
        second = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2")
        outs = [
            encoder(ids, output_hidden_states=True)
            for encoder, ids in ((first, tokens()), (second, tokens(second=True)))
        ]
        hidden = torch.cat([out.hidden_states[-2] for out in outs], -1)
        text = outs[1].text_embeds[:3]
        ids = torch.tensor([[64, 64, 0, 0, 64, 64]]).repeat(6, 1)
        added = {"text_embeds": outs[1].text_embeds, "time_ids": ids}
    else:
        out = first(tokens())
        hidden, added = out.last_hidden_state, None
        text = out.pooler_output[:3] @ state["text_projection"]["weight"].T
    residuals, middle = list[Tensor](), list[Tensor]()
    network.conv_in.register_forward_hook(lambda _, __, out: residuals.append(out))
    for block in network.down_blocks:
        block.register_forward_hook(lambda _, __, out: residuals.extend(out[1]))
    network.mid_block.register_forward_hook(lambda _, __, out: middle.append(out))
    network(latents().repeat(2, 1, 1, 1), T.repeat(2), encoder_hidden_states=hidden, added_cond_kwargs=added)
    pooled = [residuals[i].mean((2, 3))[:3] for i in ((2, 5, 8) if xl else (2, 5, 8, 11))]
    full, empty = middle[0].mean((2, 3)).chunk(2)
    features = torch.cat([*pooled, empty + guidance_scale * (full - empty)], -1)
    image = features @ state["visual_projection"]["weight"].T
    cosine = (image * text).sum(-1) / (image.norm(dim=-1) * text.norm(dim=-1))
    return torch.tensor(2.5).exp() * cosine


@pytest.mark.parametrize("guidance_scale", [None, 3.0])
def test_its_scores_are_those_of_the_authors_formula(released, guidance_scale):
    reward = rewards.load("latent", path=released, **({"guidance": guidance_scale} if guidance_scale else {}))
    assert isinstance(reward, LRM) and not reward.training
    with torch.no_grad():
        scores = reward(latents(), T, PROMPTS)
    torch.testing.assert_close(
        scores, by_the_authors_formula(released, guidance_scale or 7.5), rtol=1e-4, atol=1e-4
    )
    assert scores.std() > 0.01


def test_every_stored_tensor_is_in_the_reward_but_for_the_up_blocks(released):
    reward = rewards.load("latent", path=released)
    ours = {name.removeprefix("backbone."): tensor for name, tensor in reward.state_dict().items()}
    ours = {name.replace("text_model.", ""): tensor for name, tensor in ours.items()}
    theirs = {f"unet.{k}": v for k, v in load_file(next((released / "unet").glob("*.safetensors"))).items()}
    theirs = {
        k: v for k, v in theirs.items() if not k.startswith(("unet.up_", "unet.conv_norm", "unet.conv_out"))
    }
    for part in ("text_encoder", "text_encoder_2"):
        for file in (released / part).glob("*.safetensors"):
            theirs |= {f"{part}.{k.removeprefix('text_model.')}": v for k, v in load_file(file).items()}
            assert torch.equal(theirs.pop(f"{part}.embeddings.position_ids"), torch.arange(77)[None])
    state = torch.load(released / "state_dict.pt", weights_only=True)
    theirs |= {f"{k}.weight": v["weight"] for k, v in state.items() if k != "logit_scale"}
    theirs["log_scale"] = torch.tensor(state["logit_scale"])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_lpo_s_own_way_to_save_the_temperature(copy):
    """The preference model beside the LPO code stores a tensor where that of the LRM code stores a number."""
    state = torch.load(copy / "state_dict.pt", weights_only=True)
    torch.save({**state, "logit_scale": torch.tensor(3.25)}, copy / "state_dict.pt")
    assert rewards.load("latent", path=copy).log_scale.tolist() == 3.25


def test_it_can_be_saved_as_ours_and_scores_the_same(released, tmp_path):
    reward = rewards.load("latent", path=released)
    save(reward, tmp_path)
    with torch.no_grad():
        again = rewards.load("latent", path=tmp_path)(latents(), T, PROMPTS)
        torch.testing.assert_close(again, reward(latents(), T, PROMPTS), rtol=1e-5, atol=1e-5)


def test_half_precision_files_are_computed_in_fp32(copy):
    for file in copy.rglob("*.safetensors"):
        rows = load_file(file)
        save_file(
            {k: v.half() if v.is_floating_point() else v for k, v in rows.items()}, file, {"format": "pt"}
        )
    reward = rewards.load("latent", path=copy)
    assert {parameter.dtype for parameter in reward.parameters()} == {torch.float32}


def change(file: Path, rule) -> None:
    """Rewrite a file of weights."""
    if file.suffix == ".pt":
        torch.save(rule(torch.load(file, weights_only=True)), file)
    else:
        save_file(rule(load_file(file)), file, metadata={"format": "pt"})


UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
TEXT_FILE = "text_encoder/model.safetensors"
LAST = "text_model.final_layer_norm.weight"


def without(name):
    return lambda rows: {key: value for key, value in rows.items() if key != name}


@pytest.mark.parametrize(
    ("name", "rule", "words"),
    [
        (UNET_FILE, without("conv_in.bias"), r"unet with no conv_in\.bias; expected the released layout"),
        (UNET_FILE, lambda rows: rows | {"a.b": torch.ones(1)}, r"unet with an unknown a\.b; expected"),
        (UNET_FILE, lambda rows: rows | {"conv_in.bias": torch.ones(3)}, r"another shape of conv_in\.bias"),
        (TEXT_FILE, without(LAST), r"text_encoder with no final_layer_norm\.weight; expected"),
        (TEXT_FILE, lambda rows: rows | {"a": torch.ones(1), "b": torch.ones(1)}, "an unknown a and 1 more"),
        ("state_dict.pt", without("text_projection"), r"state_dict\.pt with no text_projection\.weight; exp"),
        ("state_dict.pt", without("visual_projection"), r"with no visual_projection\.weight"),
        ("state_dict.pt", without("logit_scale"), "with no logit_scale; expected"),
        ("state_dict.pt", lambda rows: rows | {"bias": torch.ones(1)}, "with an unknown bias; expected"),
        ("state_dict.pt", lambda rows: rows | {"note": "hello"}, "with note, no tensor; expected"),
        ("state_dict.pt", lambda rows: {}, "with no logit_scale and 2 more; expected"),
        ("state_dict.pt", lambda rows: [1.0], "with no logit_scale and 2 more; expected"),
        (
            "state_dict.pt",
            lambda rows: rows | {"visual_projection": {"weight": torch.ones(())}},
            r"another shape of text_projection\.weight and 1 more",
        ),
        (
            "state_dict.pt",
            lambda rows: rows | {"visual_projection": {"weight": torch.ones(12, 24)}},
            r"another shape of visual_projection\.weight",
        ),
    ],
)
def test_a_tensor_that_is_missing_unknown_or_of_another_shape_is_one_line(copy, name, rule, words):
    change(copy / name, rule)
    with pytest.raises(ValueError, match=words) as caught:
        rewards.load("latent", path=copy)
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value)


class Harm:
    """What a pickle could run."""

    def __reduce__(self):
        return (Path.touch, (Path("harmed"),))


def test_nothing_of_a_file_is_run(copy, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.save({"logit_scale": Harm()}, copy / "state_dict.pt")
    with pytest.raises(ValueError, match=r"state_dict\.pt, which does not open as plain tensors"):
        rewards.load("latent", path=copy)
    assert not Path("harmed").exists()
    (copy / "text_encoder" / "model.safetensors").rename(copy / "text_encoder" / "pytorch_model.bin")
    torch.save({"visual_projection": {}, "logit_scale": 1.0}, copy / "state_dict.pt")
    with pytest.raises(ValueError, match=r"text_encoder without \.safetensors; expected"):
        rewards.load("latent", path=copy)


@pytest.mark.parametrize("part", ["unet/config.json", "text_encoder/config.json", "state_dict.pt"])
def test_a_missing_part_is_named(copy, part):
    (copy / part).unlink()
    with pytest.raises(ValueError, match=f"without {part}; expected the released layout, unet/, text_enc"):
        rewards.load("latent", path=copy)


def test_other_folders_are_told_what_is_expected(copy, tmp_path):
    shutil.copytree(copy, tmp_path / "both" / "lrm_sd15")
    with pytest.raises(ValueError, match=r"which holds latent rewards in lrm_sd15; expected one of them"):
        rewards.load("latent", path=tmp_path / "both")
    with pytest.raises(ValueError, match=r"got sha256 for .*, a released latent reward of several files"):
        rewards.load("latent", path=copy, sha256="0" * 64)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match="empty, which holds no latent reward; expected the output of t2ialign"
    ):
        rewards.load("latent", path=tmp_path / "empty")
    (copy / "text_encoder" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"another shape of|with no "):
        rewards.load("latent", path=copy)
    (copy / "unet" / "config.json").write_text("[", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json, which makes no UNet2DConditionModel"):
        rewards.load("latent", path=copy)


def test_the_weights_folder_is_looked_into(copy, monkeypatch):
    monkeypatch.setenv("T2IALIGN_WEIGHTS", str(copy.parent))
    assert isinstance(rewards.load("latent", path="lrm"), LRM)
    copy.rename(copy.with_name("lrm@v1"))
    assert isinstance(rewards.load("latent", path=copy.with_name("lrm@v1")), LRM)


@pytest.mark.rest
def test_train_lpo_takes_it(copy, tiny_sd, tmp_path, capsys):
    """The released judge and any model of its latent space, by one setting."""
    small = [
        "num_inference_steps=4",
        "collect_prompts=4",
        "candidates=2",
        "batch_size=2",
        "max_steps=1",
        "trackers=[]",
    ]
    settings = [f"model={tiny_sd}", f"reward_options.path={copy}", f"output={tmp_path / 'run'}", *small]
    loose = ["prompts=a red circle", "threshold_low=0", "threshold_high=0", "t_max=999"]
    assert main(["train", "lpo", *settings, *loose]) == 0
    assert (tmp_path / "run" / "pytorch_lora_weights.safetensors").is_file()
    assert "mean latent before training" in capsys.readouterr().err
