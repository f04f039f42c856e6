"""LoRA and full training: the reference is exact, files load in diffusers, counts are the published ones."""

import logging

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from safetensors.torch import load_file

from t2ialign.diffusion.kernels import ODE
from t2ialign.models.full import save_all, train_all
from t2ialign.models.generate import generate
from t2ialign.models.load import load_policy
from t2ialign.models.lora import add_lora, trainable
from t2ialign.models.lora_apply import apply_lora, load_lora
from t2ialign.models.lora_saved import save_lora
from t2ialign.models.lora_targets import ATTENTION as TARGETS

SD15 = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}


def disturb(policy, size: float = 0.1) -> None:
    """Move every trained weight, as training would."""
    draw = torch.Generator().manual_seed(0)
    for parameter in trainable(policy).values():
        parameter.data += size * torch.randn(parameter.shape, generator=draw)


def inputs(policy):
    x_t = torch.randn(2, *policy.latent_shape(32, 32), generator=torch.Generator().manual_seed(5))
    return x_t, torch.tensor([901, 51]), policy.encode_prompts(["a cat", "a dog"])


def predict(policy):
    with torch.no_grad():
        return policy.predict(*inputs(policy))


@pytest.fixture(params=["tiny_sd", "tiny_sdxl"])
def folder(request):
    return request.getfixturevalue(request.param)


def test_policy_starts_as_the_reference_and_the_reference_stays_the_base(folder):
    policy = load_policy(str(folder))
    base = predict(policy)
    add_lora(policy, 4)
    assert torch.equal(predict(policy), base)
    disturb(policy)
    moved = predict(policy)
    assert (moved - base).abs().max() > 1e-2
    with policy.reference():
        assert torch.equal(predict(policy), base)
        with policy.reference():  # nesting is harmless
            assert torch.equal(predict(policy), base)
        assert torch.equal(predict(policy), base)
    assert torch.equal(predict(policy), moved)


def test_the_reference_records_nothing_and_leaves_the_graph_alone(tiny_sd):
    policy = load_policy(str(tiny_sd))
    add_lora(policy, 2)
    disturb(policy)
    names = list(trainable(policy))
    out = policy.predict(*inputs(policy))
    with policy.reference():
        assert not policy.predict(*inputs(policy)).requires_grad
    assert list(trainable(policy)) == names
    out.square().sum().backward()  # the graph made before the switch still reaches every weight
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trainable(policy).values())
    assert all(p.grad is None for name, p in policy.unet.named_parameters() if name not in names)


def test_the_reference_comes_back_after_an_error(tiny_sd):
    policy = load_policy(str(tiny_sd))
    add_lora(policy, 2)
    disturb(policy)
    moved = predict(policy)
    with pytest.raises(RuntimeError, match="stop"), policy.reference():
        raise RuntimeError("stop")
    assert torch.equal(predict(policy), moved) and torch.is_grad_enabled()


class Wrapper(torch.nn.Module):
    """As a trainer wraps the network for several processes: it counts its calls."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, *args, **kwargs):
        self.calls += 1
        return self.inner(*args, **kwargs)


def test_training_goes_through_the_wrapper_and_the_reference_past_it(tiny_sd):
    """The wrapper averages gradients; the reference has none to average."""
    policy = load_policy(str(tiny_sd))
    add_lora(policy, 2)
    policy.net = wrapper = Wrapper(policy.unet)
    predict(policy)
    assert wrapper.calls == 1
    with policy.reference():
        predict(policy)
    assert wrapper.calls == 1


def test_only_attention_projections_are_trained(tiny_sd):
    policy = load_policy(str(tiny_sd))
    add_lora(policy, 4)
    names = list(trainable(policy))
    layers = {name.rsplit(".lora_", 1)[0] for name in names}
    assert {layer.split(".", layer.count("."))[-1] for layer in layers} <= {"to_q", "to_k", "to_v", "0"}
    assert len(names) == 2 * len(layers)
    attentions = sum(name.endswith(("attn1", "attn2")) for name, _ in policy.unet.named_modules())
    assert len(layers) == 4 * attentions
    assert all(p.shape[0] == 4 or p.shape[1] == 4 for p in trainable(policy).values())


def test_sd15_rank_4_has_797184_parameters():
    """Stable Diffusion 1.5's own UNet, on the meta device: no memory."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD15).requires_grad_(False)
        total = sum(p.numel() for p in unet.parameters())
        unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=list(TARGETS)))
    assert total == 859_520_964
    assert sum(p.numel() for p in unet.parameters() if p.requires_grad) == 797_184


def test_same_seed_same_start(tiny_sd):
    starts = []
    for seed in (1, 1, 2):
        policy = load_policy(str(tiny_sd))
        torch.rand(1)  # the global generator must not matter
        state = torch.get_rng_state()
        add_lora(policy, 4, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        starts.append(torch.cat([p.detach().flatten() for p in trainable(policy).values()]))
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lora_is_fp32_over_a_half_base(tiny_sd, precision):
    policy = load_policy(str(tiny_sd), precision=precision)
    add_lora(policy, 4)
    assert {p.dtype for p in trainable(policy).values()} == {torch.float32}
    assert policy.unet.conv_in.weight.dtype == policy.dtype != torch.float32
    with policy.reference():
        base = predict(policy)
    assert torch.equal(predict(policy), base)
    policy.predict(*inputs(policy)).square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in trainable(policy).values())


def test_saved_lora_gives_the_same_images_in_diffusers(folder, tmp_path):
    """alpha differs from rank: a file that forgot it would give other images."""
    policy = load_policy(str(folder))
    add_lora(policy, 4, alpha=12)
    disturb(policy)
    file = save_lora(policy, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [file.name] == ["pytorch_lora_weights.safetensors"]
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    x_T = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def theirs() -> torch.Tensor:
        call = pipe("a cat", num_inference_steps=4, guidance_scale=3.0, latents=x_T, output_type="pt")
        return call.images

    before = theirs()
    pipe.load_lora_weights(tmp_path)
    after = theirs()
    assert (after - before).abs().max() > 1e-2
    torch.testing.assert_close(render(policy, x_T), after, rtol=0, atol=2e-4)


def render(policy, x_T: torch.Tensor) -> torch.Tensor:
    from t2ialign.diffusion.sampler import sample

    with torch.no_grad():
        cond = policy.encode_prompts(["a cat"])
        return policy.decode(sample(policy, cond, x_T, policy.timesteps(4), kernel=ODE, guidance_scale=3.0))


def test_load_lora_is_the_inverse_of_save(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    policy = load_policy(str(folder))
    add_lora(policy, 4, alpha=2)
    disturb(policy)
    file = save_lora(policy, tmp_path)
    for path in (tmp_path, file):
        again = load_policy(str(folder))
        base = predict(again)
        load_lora(again, path)
        torch.testing.assert_close(predict(again), predict(policy), rtol=1e-5, atol=1e-6)
        assert not trainable(again)
        with again.reference():
            assert torch.equal(predict(again), base)
        assert not trainable(again)
    assert "No LoRA keys" not in caplog.text, "a hint about text encoders, which we never train"


def test_two_loras_add_up_by_weight(tiny_sd, tmp_path):
    """Deltas of one linear layer: base + w_1 d_1 + w_2 d_2."""
    deltas = []
    for seed in (1, 2):
        policy = load_policy(str(tiny_sd))
        add_lora(policy, 2, seed=seed)
        disturb(policy)
        state = load_file(save_lora(policy, tmp_path / str(seed)))
        down, up = (state[key] for key in sorted(state)[:2])
        deltas.append(up @ down)
    policy = load_policy(str(tiny_sd))
    load_lora(policy, tmp_path / "1", weight=0.5)
    load_lora(policy, tmp_path / "2", weight=-2.0)
    name = sorted(load_file(tmp_path / "1" / "pytorch_lora_weights.safetensors"))[0]
    layer = policy.unet.get_submodule(name.removeprefix("unet.").rsplit(".lora", 1)[0])
    x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(0))
    expected = layer.base_layer(x) + x @ (0.5 * deltas[0] - 2 * deltas[1]).T
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_a_lora_to_sample_with_is_folded_into_fp32_weights(tiny_sd, tmp_path):
    """No adapter runs in a step; weights of fewer bits would round it away, so that it stays beside them."""
    policy = load_policy(str(tiny_sd))
    add_lora(policy, 2)
    disturb(policy)
    save_lora(policy, tmp_path)
    beside, folded = load_policy(str(tiny_sd)), load_policy(str(tiny_sd))
    load_lora(beside, tmp_path, weight=0.5)
    apply_lora(folded, tmp_path, weight=0.5)
    torch.testing.assert_close(predict(folded), predict(beside), rtol=1e-4, atol=1e-5)
    assert not torch.equal(predict(folded), predict(load_policy(str(tiny_sd))))
    assert not any("lora_" in name for name, _ in folded.unet.named_modules())
    half = load_policy(str(tiny_sd), precision="bf16")
    apply_lora(half, tmp_path, weight=0.5)
    assert half.loras == {"lora_0": 0.5}


def test_full_weights_keep_a_frozen_copy(folder):
    policy = load_policy(str(folder))
    base = predict(policy)
    train_all(policy)
    assert len(trainable(policy)) == len(list(policy.unet.parameters()))
    assert torch.equal(predict(policy), base)
    disturb(policy, 0.01)
    moved = predict(policy)
    assert (moved - base).abs().max() > 1e-2
    with policy.reference():
        assert torch.equal(predict(policy), base)
    assert torch.equal(predict(policy), moved)


def test_full_weights_are_fp32_and_compute_in_half(tiny_sd):
    policy = load_policy(str(tiny_sd), precision="bf16", master_weights=True)
    exact = load_policy(str(tiny_sd)).unet.conv_in.weight
    assert torch.equal(policy.unet.conv_in.weight, exact)
    train_all(policy)
    products = []
    policy.unet.mid_block.resnets[0].conv1.register_forward_hook(
        lambda _, args, out: products.append(out.dtype)
    )
    out = policy.predict(*inputs(policy))
    out.square().sum().backward()
    assert products == [torch.bfloat16]
    assert {p.grad.dtype for p in trainable(policy).values() if p.grad is not None} == {torch.float32}


def test_saved_full_weights_load_in_diffusers(tiny_sd, tmp_path):
    policy = load_policy(str(tiny_sd))
    train_all(policy)
    disturb(policy, 0.01)
    for _ in range(2):  # a second save replaces the first
        saved = save_all(policy, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["unet"]
    pipe = DiffusionPipeline.from_pretrained(tiny_sd, unet=UNet2DConditionModel.from_pretrained(saved))
    for (name, ours), theirs in zip(policy.unet.named_parameters(), pipe.unet.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_bad_requests_are_errors(tiny_sd, tiny_sdxl, tmp_path, caplog):
    policy = load_policy(str(tiny_sd))
    with pytest.raises(ValueError, match="got a policy without a LoRA"):
        save_lora(policy, tmp_path)
    with pytest.raises(ValueError, match="got LoRA rank 0; expected at least 1"):
        add_lora(policy, 0)
    with pytest.raises(ValueError, match=r"got LoRA targets \['to_z'\]; expected names of layers"):
        add_lora(policy, 4, targets=["to_z"])
    policy = load_policy(str(tiny_sd))
    add_lora(policy, 4)
    with pytest.raises(ValueError, match=r"got a policy with adapters \['default'\]"):
        add_lora(policy, 4)
    with pytest.raises(ValueError, match=r"got LoRA '.*nowhere'; expected a .safetensors file"):
        load_lora(policy, tmp_path / "nowhere")
    save_lora(policy, tmp_path)
    load_lora(load_policy(str(tiny_sdxl)), tmp_path)  # the widths of its prompts differ, the rest is the same
    assert "WARNING: LoRA" in caplog.text and "24 of 32 layers matched; the other 8" in caplog.text
    (tmp_path / "broken.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(ValueError, match=r"got LoRA '.*broken.safetensors'"):
        load_lora(load_policy(str(tiny_sd)), tmp_path / "broken.safetensors")


def test_generate_sees_the_adapter(tiny_sd):
    policy = load_policy(str(tiny_sd))
    add_lora(policy, 4)
    disturb(policy)
    aligned = generate(policy, ["a cat"], [0], num_inference_steps=3, guidance_scale=3.0)
    with policy.reference():
        base = generate(policy, ["a cat"], [0], num_inference_steps=3, guidance_scale=3.0)
    torch.testing.assert_close(
        base, generate(load_policy(str(tiny_sd)), ["a cat"], [0], num_inference_steps=3, guidance_scale=3.0)
    )
    assert (aligned - base).abs().max() > 1e-2
