"""What a model card tells people to do works as printed, wherever the folder goes."""

import json
import re
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import DDIMScheduler, PNDMScheduler
from safetensors.torch import load_file

from t2ialign.diffusion.kernels import ODE
from t2ialign.diffusion.sampler import sample
from t2ialign.methods.dpo import trainer as dpo
from t2ialign.methods.lrm import trainer as lrm
from t2ialign.models.load import load_policy
from t2ialign.models.lora_apply import load_lora
from t2ialign.training import base, usage
from t2ialign.training.methods import methods
from tests.conftest import BETAS
from tests.methods.test_lrm import FAST, dark_pairs  # noqa: F401  (a fixture)
from tests.training import toy

LOADERS = [
    name
    for name in methods()
    if issubclass(import_module(f"t2ialign.methods.{name}.trainer").Trainer, base.Trainer)
]


@pytest.fixture(scope="module")
def pndm_sd(tiny_sd, tmp_path_factory) -> Path:
    """The tiny model with the scheduler of Stable Diffusion 1.5, as a single file gives it."""
    folder = tmp_path_factory.mktemp("pndm") / "sd"
    shutil.copytree(tiny_sd, folder)
    PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1).save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "PNDMScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def snippets(card: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)


def noise() -> torch.Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def printed(card: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """An image of the pipeline that the card's snippet makes, run beside the folder, BASE replaced."""
    (snippet,) = snippets(card)
    assert snippet.count('"BASE"') == 1
    monkeypatch.chdir(card.parent.parent)
    scope: dict = {}
    exec(snippet.replace('"BASE"', repr(str(model))), scope)
    assert scope["image"].size == (32, 32)
    call = scope["pipe"](
        "a prompt", num_inference_steps=20, guidance_scale=5.0, latents=noise(), output_type="pt"
    )
    return call.images


def ours(model: str, lora: Path | None) -> torch.Tensor:
    policy = load_policy(model, device="cpu")
    if lora is not None:
        load_lora(policy, lora)
    with torch.no_grad():
        cond = policy.encode_prompts(["a prompt"])
        return policy.decode(
            sample(policy, cond, noise(), policy.timesteps(20), kernel=ODE, guidance_scale=5.0)
        )


def test_a_pndm_config_made_into_ddim_clips_latents(pndm_sd):
    """Why cards name the setting: the config does not state it, and the default is for pixels."""
    config = PNDMScheduler.from_pretrained(pndm_sd, subfolder="scheduler").config
    assert "clip_sample" not in config
    assert DDIMScheduler.from_config(config).config.clip_sample is True
    named = DDIMScheduler.from_config(config, clip_sample=False, set_alpha_to_one=False).config
    assert named.clip_sample is False and named.set_alpha_to_one is False


def test_the_card_s_snippet_gives_the_images_of_sample(toy_config, pndm_sd, monkeypatch):
    cfg = toy_config(model=str(pndm_sd), max_steps=3, lr=0.1)
    toy.Trainer(cfg).fit()
    images = printed(cfg.output / "README.md", pndm_sd, monkeypatch)
    assert images.isfinite().all() and images.std() > 0.01
    expected = ours(str(pndm_sd), cfg.output)
    assert (expected - ours(str(pndm_sd), None)).abs().max() > 1e-2
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-3)


def test_the_card_of_full_weights_gives_the_images_of_sample(toy_config, pndm_sd, monkeypatch):
    cfg = toy_config(model=str(pndm_sd), max_steps=2, lora_rank=0)
    toy.Trainer(cfg).fit()
    images = printed(cfg.output / "README.md", pndm_sd, monkeypatch)
    torch.testing.assert_close(images, ours(str(cfg.output), None), rtol=0, atol=1e-3)


def test_a_run_has_a_file_for_each_program_and_the_card_names_them(dpo_config):
    cfg = dpo_config(max_steps=1)
    dpo.Trainer(cfg).fit()
    kohya = load_file(cfg.output / "run_kohya.safetensors")
    assert len(kohya) == 3 * 32 and all(key.startswith("lora_unet_") for key in kohya)
    checkpoints = sorted(cfg.output.glob("checkpoints/*/*kohya*"))
    assert not checkpoints
    card = (cfg.output / "README.md").read_text()
    for words in (
        "put `run_kohya.safetensors` into `ComfyUI/models/loras`",
        "*Load LoRA*",
        "into `models/Lora`",
        "`<lora:run_kohya:1>`",
        "clip_sample=False, set_alpha_to_one=False",
    ):
        assert words in card
    head = yaml.safe_load(card.split("---\n")[1])
    assert "base_model" not in head
    assert str(Path(cfg.model)) not in card and f"`{Path(cfg.model).name}` aligned with" in card


@pytest.mark.parametrize("name", LOADERS)
def test_every_trainer_of_a_denoiser_writes_them_the_same_way(name):
    """The one test of the files above is of all: none has a way of its own to write its result."""
    trainer = import_module(f"t2ialign.methods.{name}.trainer").Trainer
    assert trainer.result is base.Trainer.result and trainer.write_card is base.Trainer.write_card


def test_the_trainers_of_denoisers_are_these():
    assert LOADERS == ["backprop", "dense", "dpo", "grpo", "kto", "lpo", "sft", "tpo"]


def test_the_embedded_model_is_no_base_model(toy_config):
    cfg = toy_config(model="toy", max_steps=1)
    toy.Trainer(cfg).fit()
    card = (cfg.output / "README.md").read_text()
    assert "base_model" not in card and "`toy` aligned with" in card
    assert 'from_pretrained("BASE")' in card and "assets" not in card


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", "stabilityai/stable-diffusion-xl-base-1.0"),
        ("toy", None),
        ("/models/sd15.safetensors", None),
        ("./models/sd15", None),
        ("~/sd15", None),
        ("a/b/c", None),
    ],
)
def test_a_base_model_is_named_as_on_the_hub_or_not_at_all(model, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert usage.hub_id(model) == name
    (tmp_path / "stabilityai" / "stable-diffusion-xl-base-1.0").mkdir(parents=True)
    assert usage.hub_id("stabilityai/stable-diffusion-xl-base-1.0") is None  # a folder here


def test_how_the_base_was_read_is_in_the_snippet(tmp_path):
    settings = {
        "set_alpha_to_one": False,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "variant": "fp16",
        "clip_skip": 1,
    }
    text = usage.lora("owner/model", tmp_path / "run", kohya=None, settings=settings)
    assert 'from_pretrained("owner/model", variant="fp16")\n' in text
    assert (
        "clip_sample=False, set_alpha_to_one=False, "
        'prediction_type="v_prediction", rescale_betas_zero_snr=True)'
    ) in text
    assert "guidance_scale=5.0, clip_skip=1).images[0]" in text
    assert "`t2ialign sample --clip-skip 1` does not" in text
    assert "t2ialign export run --format kohya -o run_kohya.safetensors" in text


def test_the_snippet_of_a_latent_reward_loads_it(tiny_sd, dark_pairs, tmp_path, monkeypatch):  # noqa: F811
    values = {
        "model": str(tiny_sd),
        "data": str(dark_pairs),
        "output": tmp_path / "run",
        **FAST,
        "max_steps": 1,
    }
    cfg = lrm.Config.model_validate(values)
    trainer = lrm.Trainer(cfg)
    trainer.fit()
    card = (cfg.output / "README.md").read_text()
    assert str(tiny_sd) not in card.replace(str(dark_pairs), "")
    (snippet,) = snippets(cfg.output / "README.md")
    monkeypatch.chdir(tmp_path)
    scope = {
        "latents": torch.zeros(2, *trainer.shape),
        "t": torch.tensor([1, 501]),
        "prompts": ["a cat", "a dog"],
    }
    exec(snippet, scope)
    expected = trainer.reward.eval().score(scope["latents"], scope["t"], scope["prompts"])
    torch.testing.assert_close(scope["scores"], expected, rtol=1e-4, atol=1e-5)
