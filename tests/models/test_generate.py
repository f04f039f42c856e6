"""An image depends on its prompt and its seed, and on nothing else."""

from typing import Any

import pytest
import torch

from t2ialign.models.generate import generate
from t2ialign.models.load import load_policy

PROMPTS = ["a cat", "a dog", "a cat", "two cows", "a cat"]
SEEDS = [0, 1, 2, 3, 0]
OPTIONS: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 4.0}


@pytest.fixture(scope="module", params=["tiny_sd", "tiny_sdxl"])
def policy(request):
    return load_policy(str(request.getfixturevalue(request.param)))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_batches_do_not_matter(policy, eta):
    together = generate(policy, PROMPTS, SEEDS, eta=eta, **OPTIONS)
    assert together.shape == (5, 3, 32, 32) and together.device.type == "cpu"
    assert together.min() >= 0 and together.max() <= 1 and together.std() > 0.01
    by_two = generate(policy, PROMPTS, SEEDS, eta=eta, batch_size=2, **OPTIONS)
    torch.testing.assert_close(by_two, together, rtol=0, atol=1e-4)
    alone = generate(policy, PROMPTS[3:4], SEEDS[3:4], eta=eta, **OPTIONS)
    torch.testing.assert_close(alone, together[3:4], rtol=0, atol=1e-4)
    torch.testing.assert_close(together[4], together[0], rtol=0, atol=1e-4)  # same prompt, same seed
    assert (together[2] - together[0]).abs().max() > 1e-2  # same prompt, other seed


def test_the_first_noise_comes_from_the_seed_alone(policy):
    seen: list[torch.Tensor] = []
    hook = policy.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for prompt, seed in (("a cat", 9), ("a dog", 9), ("a cat", 8)):
        generate(policy, [prompt], [seed], num_inference_steps=1, guidance_scale=1.0)
    hook.remove()
    assert torch.equal(seen[0], seen[1]) and (seen[0] - seen[2]).abs().max() > 0.1


def test_every_step_draws_its_own_noise(policy):
    """What eta = 1 adds at the first step is that step's own draw, not the next step's."""
    draws = torch.Generator().manual_seed(9)
    noise = torch.cat([torch.randn(1, 4, 8, 8, generator=draws) for _ in range(3)])
    seen: list[torch.Tensor] = []
    hook = policy.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    generate(policy, ["a cat"], [9], num_inference_steps=2, guidance_scale=1.0, eta=1.0)
    generate(policy, ["a cat"], [9], num_inference_steps=2, guidance_scale=1.0, eta=0.0)
    hook.remove()
    added = (seen[1] - seen[3]).flatten()
    torch.testing.assert_close(seen[0][0], noise[0])
    towards = [torch.corrcoef(torch.stack([added, draw.flatten()]))[0, 1].item() for draw in noise]
    assert towards[1] > 0.5 and abs(towards[2]) < 0.3


def test_each_unique_prompt_is_encoded_once(policy):
    rows: list[int] = []
    policy.null_cond(policy.encode_prompts(["warm up"]))
    hook = policy.pipe.text_encoder.register_forward_hook(lambda _, args, out: rows.append(len(args[0])))
    generate(policy, PROMPTS * 3, range(15), batch_size=2, **OPTIONS)
    hook.remove()
    assert sum(rows) == 3


def test_sizes_and_progress(policy):
    done: list[int] = []
    images = generate(
        policy, PROMPTS, SEEDS, height=16, width=48, batch_size=2, progress=done.append, **OPTIONS
    )
    assert images.shape == (5, 3, 16, 48) and done == [2, 2, 1]


def test_no_gradients_are_recorded(policy):
    assert not generate(policy, ["a cat"], [0], **OPTIONS).requires_grad


@pytest.mark.parametrize(
    ("prompts", "seeds", "options", "message"),
    [
        (["a", "b"], [1], {}, "got 2 prompts and 1 seeds"),
        ([], [], {}, "got 0 prompts and 0 seeds"),
        (["a"], [2**64], {}, "got seed 18446744073709551616; expected an integer of 64 bits"),
        (["a"], [1], {"batch_size": 0}, "got batch_size=0"),
        (["a"], [1], {"height": 30}, "got size 30x32; expected"),
        (["a"], [1], {"num_inference_steps": 0}, "got num_inference_steps=0; expected 1 to 1000"),
    ],
)
def test_wrong_requests_are_errors(policy, prompts, seeds, options, message):
    with pytest.raises(ValueError, match=message):
        generate(policy, prompts, seeds, **{**OPTIONS, **options})
