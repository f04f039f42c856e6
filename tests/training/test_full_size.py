"""Stable Diffusion 1.5 at its own size with random weights: a step of the trainer really fits."""

import json
import math
import time
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from t2ialign.io import atomic
from t2ialign.methods.dpo import trainer as dpo
from t2ialign.models.families.sd import UNetPolicy
from tests.conftest import sd_scheduler, tiny_tokenizer
from tests.training.helpers import ROOT

LIMIT_GB = 16
"""Of memory, which a common machine has."""
DOWN = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
UP = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")


def stable_diffusion() -> StableDiffusionPipeline:
    """The published config of each part; only the tokenizer is the tests' own, of bytes."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 77
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        attention_head_dim=8,
        cross_attention_dim=768,
        down_block_types=DOWN,
        up_block_types=UP,
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    return StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=sd_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.mark.slow
def test_one_dpo_step_of_stable_diffusion_1_5(pair_folder: Path, tmp_path: Path):
    began = time.perf_counter()
    policy = UNetPolicy(stable_diffusion())
    assert sum(p.numel() for p in policy.unet.parameters()) == 859_520_964
    cfg = dpo.Config(
        model="stable-diffusion-1.5-random",
        data=str(pair_folder),
        output=tmp_path / "run",
        resolution=128,
        limit=4,
        holdout=0,
        max_steps=1,
        batch_size=1,
        accumulate=1,
        lora_rank=4,
        trackers=(),
    )
    trainer = dpo.Trainer(cfg, policy=policy)
    assert sum(p.numel() for p in trainer.state.parameters) == 797_184
    before = [p.detach().clone() for p in trainer.state.parameters]
    row = trainer.fit()
    assert row["loss"] == pytest.approx(math.log(2), rel=1e-5) and row["grad_norm"] > 0
    assert any(not torch.equal(p, q) for p, q in zip(trainer.state.parameters, before, strict=True))
    record(ROOT / "proofs" / "full_size.json", row["max_memory_gb"], time.perf_counter() - began)


def record(file: Path, peak: float, seconds: float) -> None:
    """Keep what was measured, as the other proofs are kept. Peak memory in GB of 1e9 bytes."""
    measured = {
        "max_memory_gb": round(peak, 2),
        "of": "the GPU's tensors" if torch.cuda.is_available() else "the whole test process, resident",
        "settings": "512 px UNet at 128 px images, fp32, LoRA of rank 4, a batch of one pair",
    }
    claim = {
        "claim": f"A DPO step of Stable Diffusion 1.5 at its own size runs in less than {LIMIT_GB} GB",
        "source": "make test-slow (tests/training/test_full_size.py)",
        "paper": None,
        "measured": measured,
        "ci95": None,
        "seeds": [0],
        "seconds": round(seconds, 1),
        "verdict": "holds" if peak < LIMIT_GB else "does not hold",
    }
    file.parent.mkdir(exist_ok=True)
    atomic.write_json(file, [claim])


def test_the_record_has_the_keys_of_a_proof_and_judges_the_claim(tmp_path: Path):
    keys = ["claim", "source", "paper", "measured", "ci95", "seeds", "seconds", "verdict"]
    for peak, verdict in ((LIMIT_GB - 1, "holds"), (LIMIT_GB + 1, "does not hold")):
        record(tmp_path / "proofs" / "a.json", peak, 2.0)
        (row,) = json.loads((tmp_path / "proofs" / "a.json").read_text())
        assert list(row) == keys and row["verdict"] == verdict and row["measured"]["max_memory_gb"] == peak
