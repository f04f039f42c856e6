"""Where a file has its tensors changes nothing: loaders align weights, and equal weights compute the same.

Exact equality of computed values is meant here, in one process with one number of threads: it is what resumes
rest on, and holds by construction because the addresses of all weights are equal modulo 64.
"""

import json
import shutil
import struct
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import rewards
from rewards import trained
from rewards.base import Reward
from rewards.detection.detect import MaskDetector
from rewards.detection.detectors import load_detector
from rewards.latent import saved, untrained
from rewards.llm.local import local_writer
from rewards.vlm.local import local_judge
from t2ialign.methods.rewrite_sft import trainer as rewrite_sft
from t2ialign.methods.rewriter import language
from t2ialign.models.base import Policy
from t2ialign.models.load import load_policy
from t2ialign.models.lora import add_lora
from t2ialign.models.lora_apply import load_lora
from t2ialign.models.lora_saved import save_lora
from tests.rewards import tiny_clip, tiny_llm, tiny_vlm
from tests.rewards.detection.test_detect import mask2former
from tests.training.rewriters import new_rewriter

SHIFTS = (0, 8, 24, 40)
"""Bytes by which a header is padded; a file as written is one of them."""
PROMPTS = ["a red circle", "a blue square"]

Loaded = tuple[list[object], Tensor]
"""What a loader gave, and something that it computes."""


def shifted(source: Path, target: Path, count: int) -> Path:
    """A copy of a folder in which the data of every safetensors file starts `count` bytes later."""
    shutil.copytree(source, target)
    for file in target.rglob("*.safetensors"):
        raw = file.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header, data = raw[8 : 8 + length] + b" " * count, raw[8 + length :]
        file.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return target


def addresses(parts: list[object]) -> set[int]:
    """Of all weights and buffers of the modules among `parts`, modulo 64."""
    modules = [part for part in parts if isinstance(part, nn.Module)]
    assert modules, "nothing was loaded"
    return {t.data_ptr() % 64 for m in modules for t in chain(m.parameters(), m.buffers())}


def random(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def of_policy(policy: Policy) -> Loaded:
    x, t = random(2, *policy.latent_shape(32, 32)), torch.tensor([1, 900])
    predicted = policy.predict(x, t, policy.encode_prompts(PROMPTS))
    return list(policy.components.values()), torch.cat([predicted.flatten(), policy.decode(x).flatten()])


def base_model(folder: Path) -> Loaded:
    return of_policy(load_policy(str(folder / "sd"), device="cpu"))


def run_of_all_weights(folder: Path) -> Loaded:
    shutil.copytree(folder / "sd" / "unet", folder / "unet")
    (folder / "config.yaml").write_text(json.dumps({"model": str(folder / "sd")}))
    return of_policy(load_policy(str(folder), device="cpu"))


def lora(folder: Path) -> Loaded:
    policy = load_policy(str(folder / "sd"), device="cpu")
    load_lora(policy, folder / "lora")
    return of_policy(policy)


def latent_reward(folder: Path) -> Loaded:
    reward = untrained.from_pipeline(folder / "sd")
    return [reward], reward(random(2, 4, 8, 8), torch.tensor([10, 900]), PROMPTS)


def saved_latent_reward(folder: Path) -> Loaded:
    reward = rewards.load("latent", path=folder / "latent")
    return [reward], reward(random(2, 4, 8, 8), torch.tensor([10, 900]), PROMPTS)


def of_reward(reward: Reward) -> Loaded:
    return [reward], reward(random(2, 3, 32, 32), PROMPTS)


def clip(folder: Path) -> Loaded:
    return of_reward(rewards.load("clipscore", weights=str(folder / "clip")))


def trained_reward(folder: Path) -> Loaded:
    return of_reward(rewards.load("trained", weights=str(folder / "trained")))


def writer(folder: Path) -> Loaded:
    model = local_writer(str(folder / "llama")).model
    return [model], model(torch.arange(12)[None]).logits


def rewriter(folder: Path) -> Loaded:
    settings = {"model": str(folder / "rewriter"), "data": "none", "output": "none", "lora_rank": 0}
    model, _ = language.load(rewrite_sft.Config.model_validate(settings))
    return [model], model(torch.arange(12)[None]).logits


def judge(folder: Path) -> Loaded:
    judge = local_judge(str(folder / "llava"))
    return [judge.model], judge.answer(random(1, 3, 28, 28), ["a red circle ?"])


def detector(folder: Path) -> Loaded:
    found = load_detector(str(folder / "detector"))
    assert isinstance(found, MaskDetector)
    found.lowest = 0.0
    scores = [thing.score for thing in found(random(1, 3, 40, 56))[0]]
    return [found.model], torch.tensor(scores)


@pytest.fixture(scope="module")
def folder(tiny_sd, tmp_path_factory) -> Path:
    """Everything that loaders are tried on, as users have it."""
    root = tmp_path_factory.mktemp("loadable")
    shutil.copytree(tiny_sd, root / "sd")
    policy = load_policy(str(tiny_sd), device="cpu")
    add_lora(policy, 3)
    for parameter in policy.adapted.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.3)
    save_lora(policy, root / "lora")
    saved.save(untrained.from_pipeline(tiny_sd), root / "latent")
    tiny_clip.save_folder(tiny_clip.random_model(), root / "clip")
    state = rewards.load("toy-clip").state_dict()
    trained.save(root / "trained", state, {"reward": "toy-clip", "options": {}, "scale": 30.0})
    tiny_llm.build_llama(root / "llama")
    tiny_vlm.build_llava(root / "llava")
    new_rewriter(root / "rewriter")
    for part in mask2former():
        part.save_pretrained(root / "detector")
    return root


LOADERS: list[Callable[[Path], Loaded]] = [
    base_model,
    run_of_all_weights,
    lora,
    latent_reward,
    saved_latent_reward,
    clip,
    trained_reward,
    writer,
    rewriter,
    judge,
    detector,
]


@torch.no_grad()
@pytest.mark.parametrize("load", LOADERS, ids=lambda load: load.__name__)
def test_equal_weights_compute_the_same_wherever_a_file_has_them(load, folder, tmp_path):
    values = []
    for count in SHIFTS:
        parts, value = load(shifted(folder, tmp_path / str(count), count))
        assert addresses(parts) == {0}
        values.append(value)
    assert values[0].isfinite().all() and values[0].std() > 0
    for count, value in zip(SHIFTS, values, strict=True):
        assert torch.equal(value, values[0]), f"{count} bytes further"


def test_a_mapped_file_is_not_aligned_by_itself(folder, tmp_path):
    """Else the test above could not fail."""
    seen = set()
    for count in SHIFTS:
        vae = shifted(folder / "sd" / "vae", tmp_path / str(count), count)
        tensors = load_file(vae / "diffusion_pytorch_model.safetensors").values()
        seen |= {tensor.data_ptr() % 64 for tensor in tensors}
    assert len(seen) > 1
