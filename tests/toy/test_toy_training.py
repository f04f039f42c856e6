"""The loop that builds the toy world: its schedule, what a killed run goes on from, and its precision."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from t2ialign.toy import fit as fitting
from t2ialign.toy.fit import Plan, fit, rows
from t2ialign.toy.learning import loss_weights, train_clip, train_denoiser
from t2ialign.toy.networks import new_clip, new_denoiser, new_scheduler, new_text_encoder
from t2ialign.toy.tokenizer import POSITIONS, save_tokenizer


def test_the_rate_rises_stays_and_falls() -> None:
    plan = Plan(steps=100, lr=1.0, warmup=0.1, decay=0.5)
    assert [round(plan.rate(step), 3) for step in (0, 4, 9, 10, 49, 50, 75)] == [0.1, 0.5, 1, 1, 1, 1, 0.5]
    assert 0 < plan.rate(99) < 0.01
    assert Plan(steps=100, lr=1.0, decay=0.0).rate(99) == 1.0


def line(folder: Path, steps: int, plan: Plan, *, until: int | None = None) -> Tensor:
    """A line fitted to 3 x - 1, and killed after `until` steps."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)

    def loss(step: int) -> Tensor:
        if step == until:
            raise KeyboardInterrupt
        _, generator = rows(1, step, 8, 8)
        x = torch.randn(8, 1, generator=generator)
        return (model(x.to(model.weight.dtype)).float() - (3 * x - 1)).square().mean()

    fit(model, loss, folder, plan)
    assert model.weight.dtype == torch.float32 and not model.training
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_converges_in_either_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(fitting, "fast_dtype", lambda: dtype)
    plan = Plan(steps=400, lr=5e-2, ema=0.9)
    assert torch.allclose(line(tmp_path, 400, plan), torch.tensor([3.0, -1.0]), atol=0.02)
    assert [json.loads(row)["step"] for row in (tmp_path / "loss.jsonl").read_text().splitlines()][-1] == 400


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    plan = Plan(steps=300, lr=5e-2, ema=0.9)
    whole = line(tmp_path / "whole", 300, plan)
    with pytest.raises(KeyboardInterrupt):
        line(tmp_path / "cut", 300, plan, until=280)
    assert torch.equal(line(tmp_path / "cut", 300, plan), whole)
    logs = [(tmp_path / name / "loss.jsonl").read_text() for name in ("whole", "cut")]
    assert logs[0].splitlines()[:5] == logs[1].splitlines()[:5] and logs[0].count("\n") == logs[1].count("\n")


def test_a_loss_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        fit(model, lambda step: model.weight.sum() * torch.nan, tmp_path, Plan(steps=2, lr=1e-3))


def test_weights_of_timesteps_follow_the_signal_to_noise_ratio() -> None:
    alphas = new_scheduler().alphas_cumprod
    weights, snr = loss_weights(alphas), alphas / (1 - alphas)
    assert weights.mean().item() == pytest.approx(1.0, abs=1e-5)
    noisy = snr < 5
    assert torch.allclose(weights[noisy] / weights[999], (snr[999] / snr[noisy]).sqrt(), rtol=1e-4)
    assert torch.allclose(weights[~noisy] / weights[0], snr[0] / snr[~noisy], rtol=1e-4)


@pytest.mark.parametrize("with_text", [True, False])
def test_the_text_encoder_learns_only_in_the_clean_stages(tmp_path: Path, with_text: bool) -> None:
    torch.manual_seed(0)
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    unet, encoder = new_denoiser(), new_text_encoder(tokenizer)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    ids = _ids(tokenizer, ["", "a red circle", "two blue squares"])
    caption = torch.tensor([1, 2, 1, 2])
    latents = torch.randn(4, 4, 8, 8)
    plan = Plan(steps=2, lr=1e-3)
    train_denoiser(
        unet, encoder, latents, (ids, caption), tmp_path / "x", plan, seed=1, batch=4, with_text=with_text
    )
    same = all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert same != with_text
    assert {p.dtype for p in (*unet.parameters(), *encoder.parameters())} == {torch.float32}


def test_clip_learns_from_near_misses(tmp_path: Path) -> None:
    """Two images and two captions that are each other's near miss: in-batch negatives say the same."""
    torch.manual_seed(0)
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    clip = new_clip(tokenizer, text_layers=1, vision_layers=1)
    ids = _ids(tokenizer, ["a red circle left of a blue square", "a red circle right of a blue square"])
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    misses = ids.flip(0)[:, None]
    train_clip(clip, images, (ids, misses), tmp_path / "x", Plan(steps=60, lr=1e-3), seed=0, batch=8)
    with torch.no_grad():
        logits = clip(input_ids=ids, pixel_values=images.float() / 127.5 - 1).logits_per_image
    assert logits.argmax(1).tolist() == [0, 1]


def _ids(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    return tokenizer(texts, padding="max_length", max_length=POSITIONS, return_tensors="pt").input_ids
