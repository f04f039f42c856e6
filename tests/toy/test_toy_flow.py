"""How the toy flow model is made: an identity at first, told of captions as the pipeline tells it."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModel

from rewards.assets import folder
from rewards.latent import saved
from rewards.latent.untrained import from_pipeline
from t2ialign.models.load import load_policy
from t2ialign.toy.fit import Plan
from t2ialign.toy.learning import States, train_transformer
from t2ialign.toy.mmdit import WINDOW
from t2ialign.toy.networks import new_transformer, projected

PROMPTS = ["a red circle left of a blue square", "two green crosses"]


@pytest.fixture(scope="module")
def states() -> States:
    torch.manual_seed(0)
    return States(torch.randn(3, WINDOW, 24).half(), torch.randn(3, 20))


@torch.no_grad()
def test_it_starts_at_zero_and_its_blocks_as_the_identity(states: States) -> None:
    transformer = new_transformer(24, 20)
    tokens = transformer.pos_embed(torch.randn(3, 4, 8, 8))
    context = transformer.context_embedder(states.hidden.float())
    emb = transformer.time_text_embed(torch.tensor([1.0, 500.0, 999.0]), states.pooled)
    for block in transformer.transformer_blocks:
        _, after = block(hidden_states=tokens, encoder_hidden_states=context, temb=emb)
        assert torch.equal(after, tokens)
    out = transformer(
        torch.randn(3, 4, 8, 8),
        timestep=torch.tensor([1.0, 500.0, 999.0]),
        encoder_hidden_states=states.hidden.float(),
        pooled_projections=states.pooled,
    ).sample
    assert not out.any()


def test_its_first_loss_is_the_mean_square_of_the_velocity(tmp_path: Path, states: States) -> None:
    """Of a transformer that says 0: E (eps - x_0)^2 = 1 + 3^2 where every x_0 is 3."""
    transformer: SD3Transformer2DModel = new_transformer(24, 20)
    latents, caption = torch.full((8, 4, 8, 8), 3.0).half(), torch.tensor([1, 2] * 4)
    plan = Plan(steps=50, lr=1e-9)  # the log has the mean loss of 50 steps
    train_transformer(transformer, latents, (states, caption), tmp_path, plan, seed=3, batch=4)
    (row,) = (json.loads(line) for line in (tmp_path / "loss.jsonl").read_text().splitlines())
    assert row["loss"] == pytest.approx(10, abs=0.1)


def test_it_learns_which_caption_an_image_belongs_to(tmp_path: Path, states: States) -> None:
    """Two latents that only their captions tell apart: below the error of one that does not read."""
    transformer = new_transformer(24, 20)
    latents = torch.cat([torch.ones(4, 4, 8, 8), -torch.ones(4, 4, 8, 8)]).half()
    caption = torch.tensor([1] * 4 + [2] * 4)
    plan = Plan(steps=100, lr=2e-3)
    train_transformer(transformer, latents, (states, caption), tmp_path, plan, seed=3, batch=8)
    x_t = torch.zeros(2, 4, 8, 8)
    with torch.no_grad():
        v = transformer(
            x_t,
            timestep=torch.full((2,), 990.0),
            encoder_hidden_states=states.hidden[1:].float(),
            pooled_projections=states.pooled[1:],
        ).sample
    first, second = v.mean((1, 2, 3)).tolist()  # eps - x_0, of eps about 0
    assert first < -0.5 and second > 0.5


@torch.no_grad()
def test_a_projection_is_of_the_pooled_state() -> None:
    encoder = CLIPTextModel.from_pretrained(folder("toy") / "text_encoder").eval()
    width = encoder.config.hidden_size
    ids = torch.tensor([[606, 5, 6, 607] + [0] * 12])
    before, same = encoder(ids), projected(encoder, torch.eye(width)).eval()(ids)
    torch.testing.assert_close(same.last_hidden_state, before.last_hidden_state)
    torch.testing.assert_close(same.text_embeds, before.pooler_output)
    other = torch.randn(7, width)
    torch.testing.assert_close(
        projected(encoder, other).eval()(ids).text_embeds, before.pooler_output @ other.T
    )


@torch.no_grad()
def test_the_policy_reads_captions_as_the_pipeline_does_without_t5() -> None:
    policy = load_policy("toy-flow")
    pipe = StableDiffusion3Pipeline.from_pretrained(folder("toy-flow"), text_encoder_3=None)
    theirs, _, pooled, _ = pipe.encode_prompt(
        PROMPTS, None, None, do_classifier_free_guidance=False, max_sequence_length=0
    )
    cond = policy.encode_prompts(PROMPTS)
    assert cond["prompt_embeds"].shape[1] == WINDOW
    torch.testing.assert_close(cond["prompt_embeds"], theirs)
    torch.testing.assert_close(cond["pooled"], pooled)


@torch.no_grad()
def test_a_latent_reward_of_it_has_no_zeros_either(tmp_path: Path) -> None:
    reward = from_pipeline("toy-flow")
    text = reward.backbone.encode_prompts(PROMPTS)
    assert text["hidden"].shape[1] == WINDOW
    torch.testing.assert_close(
        text["hidden"], load_policy("toy-flow").encode_prompts(PROMPTS)["prompt_embeds"]
    )
    saved.save(reward, tmp_path)
    again = saved.build(tmp_path).backbone.encode_prompts(PROMPTS)
    torch.testing.assert_close(again["hidden"], text["hidden"])
