"""LoRAs in a plain network: where they go, that they start as nothing, and that merging changes nothing."""

import pytest
import torch
from torch import Tensor, nn

from t2ialign.models import plain_lora


class Block(nn.Module):
    """A named projection, one of another name, and torch's fused attention, which has an out_proj too."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.other = nn.Linear(8, 8), nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.other(self.q_proj(x).tanh())
        return self.attention(x, x, x)[0]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block())


def trained(net: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def test_only_the_named_layers_get_one_and_it_starts_as_nothing() -> None:
    net, x = network(), torch.randn(2, 3, 8)
    before = net(x)
    plain_lora.inject(net, rank=2, targets=("q_proj", "out_proj"))
    torch.testing.assert_close(net(x), before)
    names = {name.partition(".lora_")[0] for name in trained(net)}
    assert names == {"0.q_proj", "1.q_proj"}  # torch's attention reads out_proj.weight: a LoRA would be idle


def test_the_merged_weights_score_as_the_lora_does() -> None:
    net, x = network(), torch.randn(2, 3, 8)
    plain_lora.inject(net, rank=2, alpha=6.0)
    with torch.no_grad():
        for p in trained(net).values():
            p.add_(0.3 * torch.randn_like(p))
    state = plain_lora.merged(net)
    assert set(state) == {"0.q_proj.weight", "1.q_proj.weight"}
    plain = network()
    assert not torch.allclose(plain(x), net(x), atol=1e-3)
    plain.load_state_dict(state, strict=False)
    torch.testing.assert_close(plain(x), net(x), rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_start() -> None:
    starts = []
    for seed in (0, 0, 1):
        net = network()
        plain_lora.inject(net, rank=2, seed=seed)
        starts.append(torch.cat([p.detach().flatten() for p in trained(net).values()]))
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


def test_names_that_match_nothing_are_told_with_those_that_would() -> None:
    with pytest.raises(
        ValueError, match=r"got LoRA targets nothing; expected names .* q_proj; set lora_targets"
    ):
        plain_lora.inject(network(), rank=2, targets=("nothing",))
    with pytest.raises(ValueError, match="such as none"):
        plain_lora.inject(nn.Sequential(nn.ReLU()), rank=2)
