"""Aesthetic heads: the published files, their stored CLIP embeddings, and what is easily got wrong."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import rewards
from rewards.preprocess import Geometry
from rewards.scorers.aesthetic import CLIPS, HEADS, NAMES, Aesthetic, affine
from rewards.weights import load_state
from tests.rewards import tiny_clip
from tests.rewards.scorers.test_clip import directional

WEIGHTS = Path(os.environ.get("T2IALIGN_DATA", "../shared/data")) / "weights"
V1 = {
    "l14": "sa_0_4_vit_l_14_linear.pth",
    "b32": "sa_0_4_vit_b_32_linear.pth",
    "b16": "sa_0_4_vit_b_16_linear.pth",
}
V2 = "aesthetic-v2/sac+logos+ava1-l14-linearMSE.pth"
published = pytest.mark.skipif(not (WEIGHTS / "aesthetic-v1").is_dir(), reason="no weights in T2IALIGN_DATA")

GOLDEN = {
    "laion-v1-l14": [-2.46, -0.14, 1.90, 3.58, 5.10, 6.47, 7.79, 9.05, 10.23, 11.30],
    "laion-v2-l14": [1.66, 2.36, 3.07, 3.67, 4.24, 4.70, 5.07, 5.37, 5.58, 5.75],
}
"""Scores of LAION's ten stored embeddings of images rated 0 to 9, as their sources give them."""


def stored(clip: str) -> Tensor:
    """(10, D) unit embeddings that LAION published, by rating."""
    kind = {"l14": "vit_l_14", "b32": "vit_b_32"}[clip]
    files = [WEIGHTS / "aesthetic-v1" / f"{kind}_embeddings" / f"rating{rating}.npy" for rating in range(10)]
    return torch.from_numpy(np.concatenate([np.load(file) for file in files])).float()


def file_of(head: str) -> Path:
    """Where the public data has the file of a head: its folder and its own name."""
    kind, version, *_ = head.split("-")
    folder = WEIGHTS / (f"aesthetic-{version}" if kind == "laion" else kind)
    return folder / HEADS[head].file


def on_no_tower(head: str) -> Aesthetic:
    """A published head on a tower that is not asked."""
    return Aesthetic(tiny_clip.tower(), *affine(load_state(file_of(head))))


class V2Model(nn.Module):
    """The authors' network: five linear layers with dropout between them and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(768, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2)),
            *(nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1)),
        )


@published
@pytest.mark.parametrize("head", GOLDEN)
def test_golden_numbers_of_the_stored_embeddings(head):
    scores = on_no_tower(head).head(stored("l14"), None)
    assert scores.tolist() == pytest.approx(GOLDEN[head], abs=0.0051)


@published
def test_b32_head_orders_its_stored_embeddings():
    scores = on_no_tower("laion-v1-b32").head(stored("b32"), None)
    assert (scores.diff() > 0).all()


@published
def test_folding_v2_changes_nothing():
    """The network in eval mode against the affine map, on stored and on random embeddings."""
    model = V2Model().eval()
    model.load_state_dict(load_state(WEIGHTS / V2))
    random = F.normalize(torch.randn(100, 768, generator=torch.Generator().manual_seed(0)), dim=-1)
    embeddings = torch.cat([stored("l14"), random])
    with torch.no_grad():
        exact = model.double().layers(embeddings.double()).flatten()
    assert (on_no_tower("laion-v2-l14").head(embeddings, None) - exact).abs().max() < 2e-5


@published
def test_dropout_would_change_v2():
    """What eval() is for; the folded head has no such mode."""
    model = V2Model().train()
    model.load_state_dict(load_state(WEIGHTS / V2))
    reward = on_no_tower("laion-v2-l14")
    embeddings = stored("l14")
    assert (model.layers(embeddings).flatten() - reward.head(embeddings, None)).abs().max() > 0.05
    assert torch.equal(reward.train().head(embeddings, None), reward.eval().head(embeddings, None))


@published
@pytest.mark.parametrize("clip", V1)
def test_v1_is_the_published_linear_layer(clip):
    state = load_state(WEIGHTS / "aesthetic-v1" / V1[clip])
    embeddings = F.normalize(torch.randn(5, state["weight"].shape[1]), dim=-1)
    expected = F.linear(embeddings, **state).flatten()
    assert on_no_tower(f"laion-v1-{clip}").head(embeddings, None).tolist() == pytest.approx(
        expected.tolist(), abs=1e-5
    )


@published
@pytest.mark.parametrize("clip", ["l14", "b32", "b16"])
def test_simulacra_sees_the_embedding_times_the_root_of_its_dimension(clip):
    file = f"sac_public_2022_06_29_vit_{clip[0]}_{clip[1:]}_linear.pth"
    state = load_state(WEIGHTS / "simulacra" / "models" / file)
    linear = nn.Linear(state["linear.weight"].shape[1], 1)
    linear.load_state_dict({name.removeprefix("linear."): value for name, value in state.items()})
    embeddings = F.normalize(torch.randn(5, linear.in_features), dim=-1)
    with torch.no_grad():
        expected = linear(F.normalize(embeddings, dim=-1) * linear.in_features**0.5).flatten()
    scores = on_no_tower(f"simulacra-{clip}").head(embeddings, None)
    assert scores.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert 1 < float(state["linear.bias"]) < 10  # ratings of 1 to 10


def test_the_embedding_is_normalised_before_the_head(tmp_path):
    """Longer embeddings of the same direction score the same; without the norm they would not."""
    model = tiny_clip.random_model()
    reward = Aesthetic(
        tiny_clip.TransformersClip(model, tiny_clip.TOKENS), torch.ones(24), torch.tensor(0.0), Geometry(32)
    )
    images = torch.rand(2, 3, 32, 32)
    before = reward(images, ["", ""])
    model.visual_projection.weight.mul_(30)
    assert torch.allclose(reward(images, ["", ""]), before, atol=1e-5)


def test_heads_with_activations_are_another_model():
    relu = {f"layers.{i}.{part}": torch.ones(1, 1) for i in (0, 3, 6, 9, 11) for part in ("weight", "bias")}
    with pytest.raises(ValueError, match="a head with activations is another model"):
        affine(relu)


def test_the_map_is_worked_out_by_hand():
    two = {"weight": torch.tensor([[2.0, -1.0]]), "bias": torch.tensor([0.5])}
    weight, bias = affine(two)
    assert (weight.tolist(), bias.item()) == ([2.0, -1.0], 0.5)
    rooted = {"linear.weight": torch.full((1, 4), 3.0), "linear.bias": torch.tensor([1.0])}
    assert affine(rooted)[0].tolist() == [6.0] * 4
    chain = {}
    for index, factor in zip((0, 2, 4, 6, 7), (2.0, 3.0, 1.0, 1.0, -1.0), strict=True):
        chain |= {f"layers.{index}.weight": torch.tensor([[factor]]), f"layers.{index}.bias": torch.ones(1)}
    weight, bias = affine(chain)  # x -> 2x+1 -> 6x+4 -> 6x+5 -> 6x+6 -> -6x-5
    assert (weight.tolist(), bias.item()) == ([-6.0], -5.0)


def test_gradient_and_batch_of_one():
    reward = Aesthetic(tiny_clip.tower(), torch.randn(24), torch.tensor(5.0), Geometry(32)).double()
    torch.manual_seed(0)
    exact, measured = directional(reward, torch.rand(1, 3, 40, 36).double() * 0.8 + 0.1, ["unread"])
    assert exact == pytest.approx(measured, rel=1e-6)
    assert reward(torch.rand(1, 3, 32, 32), ["unread"]).shape == (1,)


def test_every_name_has_a_published_head_and_its_clip():
    assert {options["head"] for options in NAMES.values()} == set(HEADS)
    assert {head.rpartition("-")[2] for head in HEADS} == set(CLIPS)


@published
@pytest.mark.parametrize("head", HEADS)
def test_published_files_are_found_at_home_and_have_the_pinned_hash(head, tmp_path, monkeypatch):
    clip = str(tiny_clip.save_folder(tiny_clip.random_model(), tmp_path / "clip"))
    home = tmp_path / HEADS[head].repository / HEADS[head].file
    home.parent.mkdir(parents=True)
    home.write_bytes(file_of(head).read_bytes())
    monkeypatch.setenv("T2IALIGN_WEIGHTS", str(tmp_path))
    reward = rewards.load("aesthetic", head=head, clip=clip)
    assert reward.weight.shape == ((768,) if head.endswith("l14") else (512,))
    with pytest.raises(ValueError, match="got embeddings of 24 dimensions for a head of"):
        reward(torch.rand(1, 3, 32, 32), [""])
    home.write_bytes(b"another file")
    with pytest.raises(ValueError, match="SHA-256"):
        rewards.load("aesthetic", head=head, clip=clip)


def test_errors_name_what_is_wrong(tmp_path, monkeypatch):
    clip = str(tiny_clip.save_folder(tiny_clip.random_model(), tmp_path))
    monkeypatch.setenv("T2IALIGN_WEIGHTS", str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"got head 'laion-v3-l14'; expected one of laion-v2-l14, .*"):
        rewards.load("aesthetic", head="laion-v3-l14", clip=clip)
    with pytest.raises(ValueError, match="got head 'mine'; expected a name that ends in b32, b16, l14"):
        rewards.load("aesthetic", head="mine", weights="head.pth", clip=clip)
    with pytest.raises(ValueError, match=r"got no sa_0_4_vit_l_14_linear.pth .* fetch it with: curl --fail"):
        rewards.load("aesthetic-v1", clip=clip)
