"""Trained rewards on disk: laid over their base, refused where they do not fit."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import rewards
from rewards import trained
from rewards.weights import digest

PROMPTS = ["a red circle", "a blue square"]


def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny CLIP with a larger visual projection."""
    state = rewards.load("toy-clip").state_dict()
    (name,) = [name for name in state if name.endswith("visual_projection.weight")]
    tensors = {name: state[name] + torch.randn(state[name].shape, generator=torch.Generator().manual_seed(1))}
    trained.save(tmp_path / "run", tensors, {"reward": "toy-clip", "options": {}, "scale": 30.0})
    return tmp_path / "run"


@torch.no_grad()
def test_what_is_written_is_laid_over_the_base_and_nothing_else_changes(folder: Path) -> None:
    base, loaded = rewards.load("toy-clip"), rewards.load("trained", weights=str(folder))
    tensors = trained.read_tensors(folder)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, tensors.get(name, base.state_dict()[name]))
    assert not torch.allclose(loaded(images(), PROMPTS), base(images(), PROMPTS), atol=1e-3)
    for again in (rewards.load("toy-clip", weights=str(folder)), rewards.load(str(folder))):
        stored = loaded.state_dict()
        assert all(torch.equal(tensor, stored[name]) for name, tensor in again.state_dict().items())
        torch.testing.assert_close(again(images(), PROMPTS), loaded(images(), PROMPTS), rtol=1e-5, atol=1e-6)
    assert trained.is_trained(folder) and not trained.is_trained(folder.parent)
    assert trained.read_about(folder)["scale"] == 30.0


@torch.no_grad()
def test_kept_text_embeddings_are_of_the_trained_weights(tmp_path: Path) -> None:
    """A tower keeps embeddings of prompts; those of the base must not outlive its weights."""
    reward = rewards.load("toy-clip")
    before = reward(images(), PROMPTS)
    (name,) = [name for name in reward.state_dict() if name.endswith("text_projection.weight")]
    trained.lay_over(reward, {name: reward.state_dict()[name].flip(0)}, "here")
    after = reward(images(), PROMPTS)
    assert not torch.allclose(before, after, atol=1e-3)


@torch.no_grad()
def test_a_trained_tower_is_never_shared_with_its_base(folder: Path) -> None:
    both = rewards.load_all(["toy-clip", "trained"], {"trained": {"weights": str(folder)}})
    base = rewards.load("toy-clip")
    torch.testing.assert_close(both["toy-clip"](images(), PROMPTS), base(images(), PROMPTS))
    assert not torch.allclose(both["trained"](images(), PROMPTS), base(images(), PROMPTS), atol=1e-3)


def test_what_does_not_fit_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="trained from toy-clip, for toy-clip-b; expected weights trained from"
    ):
        rewards.load("toy-clip-b", weights=str(folder))
    with pytest.raises(ValueError, match="got no weights; expected the output folder"):
        rewards.load("trained")
    with pytest.raises(ValueError, match=r"without reward\.json"):
        rewards.load("trained", weights=str(tmp_path))
    with pytest.raises(ValueError, match="change the pin"):
        rewards.load("trained", weights=str(folder), sha256="0" * 64)
    assert rewards.load("trained", weights=str(folder), sha256=digest(folder / trained.WEIGHTS))
    trained.save(folder, {"tower.nothing": torch.zeros(2)}, {"reward": "toy-clip", "options": {}})
    with pytest.raises(ValueError, match=r"1 weights in .* do not fit ToyClip \(first: tower.nothing\)"):
        rewards.load("trained", weights=str(folder))
    about = json.loads((folder / trained.ABOUT).read_text())
    (folder / trained.ABOUT).write_text(json.dumps(about | {"format": 99}))
    with pytest.raises(ValueError, match="got format 99"):
        rewards.load("trained", weights=str(folder))
