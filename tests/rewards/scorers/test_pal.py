"""PAL heads: what they compute, that every parameter trains, new voters, files, and use as a reward."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import rewards
from rewards.scorers.pal import PalA, PalB, Projector, Votes
from rewards.scorers.pal_reward import as_reward, restore, save
from t2ialign.methods.reward.pal_fit import Schedule, fit, fit_user

DIM, WIDTH, USERS = 6, 8, 4


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def some_votes(count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Votes(
        user=torch.randint(USERS, (count,), generator=generator),
        left=unit(count, DIM, seed=seed + 1),
        right=unit(count, DIM, seed=seed + 2),
        right_wins=torch.randint(2, (count,), generator=generator).float(),
        text=unit(count, DIM, seed=seed + 3),
    )


def head(kind, **options):
    torch.manual_seed(0)
    return (PalA if kind == "a" else PalB)(DIM, USERS, width=WIDTH, **options)


FORMS = ["f(Pw)", "Pw", "f(P)w", "|f(P)|w"]


@pytest.mark.parametrize("form", FORMS)
def test_pal_a_is_minus_the_distance_to_the_ideal_point(form):
    pal, image, w = head("a", form=form), unit(3, DIM), torch.tensor([0.25, 0.75])
    p = pal.prototypes
    ideal = {
        "f(Pw)": lambda: pal.f(0.25 * p[0] + 0.75 * p[1]),
        "Pw": lambda: 0.25 * p[0] + 0.75 * p[1],
        "f(P)w": lambda: 0.25 * pal.f(p[0]) + 0.75 * pal.f(p[1]),
        "|f(P)|w": lambda: 0.25 * F.normalize(pal.f(p[0]), dim=0) + 0.75 * F.normalize(pal.f(p[1]), dim=0),
    }[form]()
    expected = -torch.stack([(pal.f(row) - ideal).square().sum().sqrt() for row in image])
    assert torch.allclose(pal.reward(image, None, w), expected, atol=1e-6)


def test_pal_b_is_a_scaled_cosine_to_the_ideal_point_of_the_prompt():
    pal, image, text, w = head("b"), unit(3, DIM), unit(3, DIM, seed=5), torch.tensor([0.25, 0.75])
    ideal = 0.25 * pal.g[0](text) + 0.75 * pal.g[1](text)
    cosine = F.cosine_similarity(pal.f(image), ideal)
    assert torch.allclose(pal.reward(image, text, w), cosine / 0.07, rtol=1e-5)
    with torch.no_grad():
        pal.scale.fill_(math.log(1e4))
    assert torch.allclose(pal.reward(image, text, w), 100 * cosine, rtol=1e-5), "clamped"


def test_pal_b_does_not_change_with_the_length_of_f():
    pal, votes = head("b").double(), some_votes()
    votes = replace(votes, **{n: getattr(votes, n).double() for n in ("left", "right", "text")})
    before = pal.margin(votes)
    with torch.no_grad():
        pal.f.layers[-1].weight.mul_(7.0)
        pal.f.layers[-1].bias.mul_(7.0)
    assert torch.allclose(pal.margin(votes), before)


def test_losses_by_hand():
    margin, wins = torch.tensor([0.4, 2.0, -0.5, 0.4]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert torch.allclose(head("a").loss(margin, wins), torch.tensor([0.6, 0.0, 1.5, 1.4]))
    two_way = torch.stack([torch.zeros(4), margin], dim=1).log_softmax(1)
    expected = -torch.where(wins == 1, two_way[:, 1], two_way[:, 0])
    assert torch.allclose(head("b").loss(margin, wins), expected)


@pytest.mark.parametrize("kind", ["a", "b"])
def test_swapping_the_images_mirrors_the_vote(kind):
    pal, votes = head(kind), some_votes()
    mirrored = replace(votes, left=votes.right, right=votes.left, right_wins=1 - votes.right_wins)
    assert torch.allclose(pal.margin(mirrored), -pal.margin(votes), atol=1e-6)
    losses = [pal.loss(pal.margin(v), v.right_wins) for v in (votes, mirrored)]
    assert torch.allclose(*losses, atol=1e-5)
    assert pal.accuracy(mirrored) == pytest.approx(pal.accuracy(votes))


@pytest.mark.parametrize("kind", ["a", "b"])
def test_a_user_is_its_mixture(kind):
    pal, votes = head(kind), some_votes()
    mixture = pal.mixtures()
    assert torch.allclose(mixture.sum(1), torch.ones(USERS))
    user_votes = votes[votes.user == 2]
    assert torch.allclose(pal.margin(user_votes), pal.margin(user_votes, mixture[2]), atol=1e-6)
    assert torch.allclose(pal.population(), mixture.mean(0))


def test_accuracy_gives_half_for_a_tie_and_skips_votes_without_winner():
    pal = head("a")
    image = unit(4, DIM)
    tie = Votes(torch.zeros(4, dtype=torch.int64), image, image, torch.tensor([1.0, 0.0, 0.5, 1.0]))
    assert pal.accuracy(tie) == 0.5


@pytest.mark.parametrize("kind", ["a", "b"])
@pytest.mark.parametrize("moved", [False, True])
def test_every_parameter_is_a_leaf_and_trains(kind, moved):
    """The released code wrapped and then moved its tensors, which left them out of the optimiser."""
    pal, votes = head(kind), some_votes()
    if moved:
        pal = pal.double().float().to("cpu")
    before = {name: value.detach().clone() for name, value in pal.named_parameters()}
    losses = fit(pal, votes, Schedule(epochs=30, batch_size=8, lr=1e-2, lr_users=1e-1, lr_scale=1e-2))
    assert all(p.is_leaf and p.requires_grad for p in pal.parameters())
    unchanged = [name for name, value in pal.named_parameters() if torch.equal(value, before[name])]
    assert unchanged == []
    assert losses[-1] < losses[0]
    assert not pal.training


def test_the_ideal_point_is_kept_short():
    """What the release computes and one of its two trainers forgets: excess length is part of the loss."""
    pal, free = head("a", max_norm=0.1), head("a", max_norm=1e9)
    schedule = Schedule(epochs=20, batch_size=8, lr=1e-2, lr_users=1e-2)
    for one in (pal, free):
        fit(one, some_votes(), schedule)
    lengths = [one.ideal(one.mixtures()).norm(dim=1).max().item() for one in (pal, free)]
    assert lengths[0] < 0.5 * lengths[1]
    assert pal.bound(torch.tensor([[0.6, 0.8]] * 2)).tolist() == pytest.approx([0.9, 0.9])


def opinionated():
    """A PAL-A whose prototypes are two corners, f the identity: all mixtures are known points."""
    pal = PalA(DIM, USERS, width=DIM, form="Pw")
    with torch.no_grad():
        for layer in (pal.f.layers[0], pal.f.layers[3], pal.f.layers[6]):
            layer.weight.zero_()
            layer.bias.zero_()
        pal.prototypes.copy_(4 * torch.eye(DIM)[:2])
        pal.logits.copy_(torch.tensor([[3.0, 0.0], [0.0, 3.0], [2.0, 0.0], [0.0, 2.0]]))
    return pal


def of_taste(prototype, count):
    """Votes for the second prototype's side or the first's."""
    sides = torch.eye(DIM)[:2]
    right = sides[prototype].expand(count, -1)
    return Votes(
        torch.zeros(count, dtype=torch.int64),
        sides[1 - prototype].expand(count, -1),
        right,
        torch.ones(count),
    )


@pytest.mark.rest
@pytest.mark.parametrize("kind", ["entropy", "l2"])
def test_a_new_voter_starts_at_the_population_and_leaves_it_with_votes(kind):
    pal = opinionated()
    mean = pal.population()
    assert mean.tolist() == pytest.approx([0.5, 0.5])
    assert torch.equal(fit_user(pal, of_taste(1, 0), kind=kind), mean)
    weights = [fit_user(pal, of_taste(1, n), kind=kind, prior=4.0)[1].item() for n in (1, 3, 20)]
    assert 0.5 < weights[0] < weights[1] < weights[2] <= 1.0
    strict = [fit_user(pal, of_taste(1, 3), kind=kind, prior=p)[1].item() for p in (0.0, 4.0, 1000.0)]
    assert strict[0] > strict[1] > strict[2]
    assert strict[2] == pytest.approx(0.5, abs=0.02)


def test_new_voter_fit_is_the_posterior_mode_and_moves_nothing_else():
    pal, votes = head("b"), some_votes(12, seed=9)
    before = {name: value.clone() for name, value in pal.state_dict().items()}
    mixture = fit_user(pal, votes, prior=2.0)
    assert all(torch.equal(value, before[name]) for name, value in pal.state_dict().items())
    mean = pal.population()

    def objective(w):
        losses = pal.loss(pal.margin(votes, w), votes.right_wins).sum()
        return (losses + 2.0 * (w * (w.log() - mean.log())).sum()).item()

    grid = [torch.tensor([p, 1 - p]) for p in torch.linspace(0.001, 0.999, 999).tolist()]
    best = min(grid, key=objective)
    assert mixture[0].item() == pytest.approx(best[0].item(), abs=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_new_voter_fit_is_not_caught_in_a_local_minimum(seed):
    """The ideal point of PAL-A bends with the mixture: from the mean alone the search can end too early."""
    torch.manual_seed(seed)
    pal = PalA(DIM, USERS, width=WIDTH)
    with torch.no_grad():
        for weight in (*pal.f.parameters(), pal.prototypes):
            weight.mul_(4)
        pal.logits.zero_()
    truth = torch.tensor([0.02, 0.98] if seed % 2 else [0.98, 0.02])
    votes = some_votes(20, seed=seed)
    votes = replace(votes, right_wins=(pal.margin(votes, truth) > 0).float())

    def objective(w):
        losses = pal.loss(pal.margin(votes, w), votes.right_wins).sum()
        return (losses + (w * (w / pal.population()).log()).sum()).item()

    grid = [torch.tensor([p, 1 - p]) for p in torch.linspace(0.005, 0.995, 199).tolist()]
    fitted = fit_user(pal, votes)
    with torch.no_grad():
        assert objective(fitted) <= min(map(objective, grid)) * 1.05 + 0.05


def test_refusals():
    with pytest.raises(ValueError, match="got form 'wP'"):
        head("a", form="wP")
    with pytest.raises(ValueError, match="got width 8 for inputs of 6"):
        Projector(6, 8, act=torch.nn.ReLU, residual=True)
    with pytest.raises(ValueError, match="got no prompt embeddings"):
        head("b").reward(unit(1, DIM), None, torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match=r"votes of users outside 0..3"):
        fit(head("a"), replace(some_votes(), user=torch.full((40,), 4)))
    with pytest.raises(ValueError, match="got prior -1"):
        fit_user(head("a"), some_votes(), prior=-1.0)


@pytest.mark.parametrize("kind", ["a", "b"])
def test_heads_are_saved_and_restored(kind, tmp_path):
    pal, votes = head(kind, prototypes=3), some_votes()
    save(pal, tmp_path / "pal.safetensors")
    again = restore(tmp_path / "pal.safetensors")
    assert type(again) is type(pal)
    stored = pal.state_dict()
    assert again.state_dict().keys() == stored.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in again.state_dict().items())
    torch.testing.assert_close(again.margin(votes), pal.eval().margin(votes), rtol=1e-5, atol=1e-5)
    assert again.max_norm == pal.max_norm
    save_file({"w": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="without a PAL head"):
        restore(tmp_path / "other.safetensors")


@pytest.mark.parametrize("kind", ["a", "b"])
def test_a_head_is_a_reward_of_a_fixed_mixture(kind, tmp_path):
    clip, prompts = rewards.load("toy-clip"), ["a red circle", "a blue square"]
    torch.manual_seed(0)
    pal = (PalA if kind == "a" else PalB)(64, USERS, width=WIDTH).eval()
    images, mixture = torch.rand(2, 3, 32, 32, requires_grad=True), torch.tensor([0.9, 0.1])
    reward = as_reward(clip, pal, mixture)
    scores = reward(images, prompts)
    scores.sum().backward()
    assert images.grad.abs().sum() > 0
    with torch.no_grad():
        image, text = clip.encode_image(clip.preprocess(images)), clip.encode_text(prompts)
        assert torch.allclose(scores, pal.reward(image, text, mixture), atol=1e-6)
    assert reward.tower is clip.tower
    assert as_reward(clip, pal).mixture.tolist() == pytest.approx(pal.population().tolist())
    assert reward.needs_text is (kind == "b"), "PAL-A reads no prompt"
    save(pal, tmp_path / "pal.safetensors")
    options = {"base": "toy-clip", "weights": str(tmp_path / "pal.safetensors"), "mixture": [0.9, 0.1]}
    loaded = rewards.load("rewards.scorers.pal_reward", **options)
    assert torch.allclose(loaded(images, prompts), scores, atol=1e-6)
    with pytest.raises(ValueError, match="expected 2 shares that add to 1"):
        as_reward(clip, pal, torch.tensor([0.9, 0.9]))
    with pytest.raises(ValueError, match="expected a two-tower scorer"):
        as_reward(rewards.load("toy-oracle"), pal)
    with pytest.raises(ValueError, match="got no base or no weights"):
        rewards.load("rewards.scorers.pal_reward")
