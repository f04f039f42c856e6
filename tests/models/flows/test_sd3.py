"""What Stable Diffusion 3 has of its own: its grid, its three text encoders, its noisy kernels."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from t2ialign.diffusion.kernels import cps, ddim, flow_sde
from t2ialign.diffusion.sampler import rollout
from t2ialign.methods.backprop import trainer as backprop
from t2ialign.models.families.sd3 import T5_LENGTH, SD3Policy
from t2ialign.models.full import save_all, train_all
from t2ialign.models.load import load_policy
from t2ialign.models.options import ModelOptions
from tests.models.flows.tiny_sd3 import tiny_sd3, tiny_sd3_pipeline

PROMPTS = ["a red circle", "two blue squares"]
SIZE = (24, 40)


@pytest.fixture(scope="module")
def policy() -> SD3Policy:
    return tiny_sd3()


def start(policy: SD3Policy, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(2, *policy.latent_shape(*size), generator=torch.Generator().manual_seed(0))


def test_the_grid_is_the_published_one_with_its_almost_empty_last_step(policy: SD3Policy) -> None:
    """diffusers shifts its shifted range again: sigma of shift 3 and 10 steps ends in .278, .0089, 0."""
    sigma = policy.path(policy.timesteps(10))[1]
    expected = [1, 0.960, 0.913, 0.858, 0.790, 0.707, 0.602, 0.465, 0.278, 0.0089, 0]
    torch.testing.assert_close(sigma, torch.tensor(expected), rtol=0, atol=6e-4)
    assert policy.timesteps(10).dtype == torch.float32 and policy.timesteps(10)[-1] == policy.end


def test_training_times_are_logit_normal_and_shifted(policy: SD3Policy) -> None:
    """u = 1/2 is the median: base 1/2, shifted by 3 to 3/4. u = .2441 is base 2/3, shifted to 6/7."""
    times = policy.draw_timesteps(torch.tensor([0.0, 0.2441, 0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(times, torch.tensor([1000, 857.14, 750, 0]), rtol=0, atol=0.1)


@pytest.mark.parametrize("kernel", [ddim(1.0), flow_sde(0.7), cps(0.8)], ids=str)
def test_noisy_kernels_have_a_density_at_every_step_but_one_into_x_0(policy: SD3Policy, kernel) -> None:
    draw = torch.Generator().manual_seed(1)
    x_T, cond = start(policy, (32, 32)), policy.encode_prompts(PROMPTS)
    path = rollout(
        policy,
        cond,
        x_T,
        policy.timesteps(4),
        kernel=kernel,
        guidance_scale=1.0,
        noise=lambda _: torch.randn(x_T.shape, generator=draw),
    )
    assert path.latents.isfinite().all() and (path.log_probs[:, :-1] != 0).all()
    assert ((path.log_probs[:, -1] != 0) == (kernel.name == "flow_sde")).all()


def test_the_fingerprint_sees_every_text_encoder_and_the_vae(policy: SD3Policy) -> None:
    """A third encoder that changed must not leave a cache in use."""
    before = policy.fingerprint()
    assert before == SD3Policy(tiny_sd3_pipeline()).fingerprint()
    for name in ("vae", "text_encoder", "text_encoder_2", "text_encoder_3"):
        other = tiny_sd3_pipeline()
        with torch.no_grad():
            next(getattr(other, name).parameters()).flatten()[0] += 1
        assert SD3Policy(other).fingerprint() != before, name
    other = tiny_sd3_pipeline()
    with torch.no_grad():
        next(other.transformer.parameters()).add_(1)
    assert SD3Policy(other).fingerprint() == before  # the cache holds nothing of it


def test_all_weights_are_written_under_the_networks_name(tmp_path: Path) -> None:
    policy = tiny_sd3()
    train_all(policy)
    written = save_all(policy, tmp_path)
    assert written == tmp_path / "transformer" and (written / "config.json").is_file()
    restored = type(policy.adapted).from_pretrained(written)
    for name, value in restored.state_dict().items():
        assert torch.equal(value, policy.adapted.state_dict()[name]), name


@torch.no_grad()
def test_without_t5_there_are_zeros_in_its_place() -> None:
    """As in diffusers' pipeline, which fills T5's tokens with zeros; with it they are no zeros."""
    pipe = tiny_sd3_pipeline()
    pipe.register_modules(text_encoder_3=None, tokenizer_3=None)
    theirs, _, pooled, _ = pipe.encode_prompt(PROMPTS, None, None, do_classifier_free_guidance=False)
    cond = SD3Policy(pipe).encode_prompts(PROMPTS)
    torch.testing.assert_close(cond["prompt_embeds"], theirs)
    torch.testing.assert_close(cond["pooled"], pooled)
    assert not cond["prompt_embeds"][:, -T5_LENGTH:].any()
    assert tiny_sd3().encode_prompts(PROMPTS)["prompt_embeds"][:, -T5_LENGTH:].any()


@torch.no_grad()
def test_a_folder_without_t5_is_loaded(tmp_path: Path) -> None:
    """diffusers itself wants to be told that it is not there."""
    pipe = tiny_sd3_pipeline()
    pipe.register_modules(text_encoder_3=None, tokenizer_3=None)
    pipe.save_pretrained(tmp_path)
    torch.testing.assert_close(
        load_policy(str(tmp_path), device="cpu").encode_prompts(PROMPTS),
        SD3Policy(pipe).encode_prompts(PROMPTS),
    )


@torch.no_grad()
def test_there_are_no_more_zeros_than_t5s_tokenizer_allows() -> None:
    pipe = tiny_sd3_pipeline()
    before = SD3Policy(pipe).encode_prompts(PROMPTS)["prompt_embeds"]
    pipe.register_modules(text_encoder_3=None)
    pipe.tokenizer_3.model_max_length = 3
    cond = SD3Policy(pipe).encode_prompts(PROMPTS)["prompt_embeds"]
    assert cond.shape[1] == before.shape[1] - T5_LENGTH + 3
    torch.testing.assert_close(cond[:, :-3], before[:, :-T5_LENGTH])
    assert not cond[:, -3:].any()


@torch.no_grad()
@pytest.mark.parametrize("clip_skip", [None, 1])
def test_prompts_are_encoded_as_in_the_pipeline(clip_skip: int | None) -> None:
    pipe = tiny_sd3_pipeline()
    theirs, _, pooled, _ = pipe.encode_prompt(
        PROMPTS, None, None, do_classifier_free_guidance=False, clip_skip=clip_skip
    )
    cond = SD3Policy(pipe, options=ModelOptions(clip_skip=clip_skip)).encode_prompts(PROMPTS)
    torch.testing.assert_close(cond["prompt_embeds"], theirs)
    torch.testing.assert_close(cond["pooled"], pooled)


def test_what_t5_reads_is_not_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    """The CLIPs read less: a prompt is cut where T5's window ends, or the CLIPs' without it."""
    long, longer = "a red circle " * 10, "a red circle " * 30
    policy = tiny_sd3()
    policy.encode_prompts([long])
    assert not caplog.records
    policy.encode_prompts([longer])
    assert f"the model reads {T5_LENGTH - 2}" in caplog.text
    policy.pipe.register_modules(text_encoder_3=None, tokenizer_3=None)
    caplog.clear()
    policy.encode_prompts([long])
    assert "prompt 'a red circle" in caplog.text


def test_training_through_sampling_leaves_the_empty_step_out(tmp_path: Path) -> None:
    """The last recorded step starts at sigma .278, not at .0089, whose velocity would count a 30th of it."""
    values = {"prompts": "a red circle", "reward": "tests.training.redness", "num_inference_steps": 10}
    values |= {"max_steps": 1, "batch_size": 2, "trackers": (), "output": tmp_path, "guidance_scale": 1.0}
    trainer = backprop.Trainer(backprop.Config.model_validate(values), policy=tiny_sd3())
    times = trainer.policy.timesteps(10)
    assert torch.equal(trainer.times, torch.cat([times[:-2], times[-1:]]))
    assert trainer.plan(0).recorded == (*[False] * 8, True)
    trainer.fit()
    card = (tmp_path / "README.md").read_text()
    assert "- Noise levels: sigma 1, 0.96, 0.913, 0.858, 0.79, 0.707, 0.602, 0.465, 0.278, 0" in card


def test_only_a_step_from_next_to_no_noise_is_empty() -> None:
    policy = tiny_sd3()
    grid = torch.tensor([1000.0, 500.0, 21.0, 0.0])
    assert torch.equal(policy.without_empty_end(grid), grid)
    assert policy.without_empty_end(grid - torch.tensor([0, 0, 2, 0])).tolist() == [1000, 500, 0]
    assert policy.without_empty_end(torch.tensor([19.0, 0.0])).tolist() == [19, 0]  # there is no other step
