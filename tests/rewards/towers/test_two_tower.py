"""Two towers: how often each encoder runs, what is kept, and that none of it changes a score."""

import copy

import pytest
import torch
from torch import Tensor, nn

from rewards.preprocess import Geometry
from rewards.towers.two_tower import KEEP_TEXTS, TEXT_BATCH, Tower, TwoTower
from tests.rewards import tiny_clip

SMALL = Geometry(32)
PROMPTS = ["a red circle", "two dogs", "a very old car on a hill", "nothing"]


class Cosine(TwoTower):
    """image . text"""

    def head(self, image: Tensor, text: Tensor | None) -> Tensor:
        assert text is not None
        return (image * text).sum(-1)


class Bright(TwoTower):
    """The first coordinate of the image."""

    needs_text = False

    def head(self, image: Tensor, text: Tensor | None) -> Tensor:
        assert text is None
        return image[:, 0]


class Letters(Tower):
    """Embeds a prompt as the unit vector of its length; counts what it is asked."""

    def __init__(self) -> None:
        super().__init__("letters")
        self.scale = nn.Parameter(torch.ones(64), requires_grad=False)
        self.calls: list[list[str]] = []

    def encode_image(self, pixels: Tensor) -> Tensor:
        return nn.functional.normalize(pixels.flatten(1)[:, :64], dim=-1)

    def encode_text(self, prompts: list[str]) -> Tensor:
        self.calls.append(prompts)
        hot = nn.functional.one_hot(torch.tensor([len(p) % 64 for p in prompts]), 64)
        return nn.functional.normalize(hot * self.scale, dim=-1)

    def text_parameters(self) -> list[nn.Parameter]:
        return [self.scale]


@pytest.mark.parametrize("batch", [64, 24, 10, 1])
def test_64_images_of_4_prompts(batch):
    """ceil(64 / B) image forwards and one text forward of 4, however the images are batched."""
    tower = tiny_clip.tower()
    reward = Cosine(tower, SMALL)
    images, prompts = torch.rand(64, 3, 40, 32), [PROMPTS[i % 4] for i in range(64)]
    whole = Cosine(tiny_clip.tower(), SMALL)(images, prompts)
    image_rows, text_rows = tiny_clip.counts(tower, "image"), tiny_clip.counts(tower, "text")
    order = sorted(range(64), key=lambda i: i // 16)  # a batch sees each prompt several times
    scores = torch.cat(
        [
            reward(images[i : i + batch], [prompts[j] for j in order[i : i + batch]])
            for i in range(0, 64, batch)
        ]
    )
    assert len(image_rows) == -(-64 // batch)
    assert sum(image_rows) == 64
    assert sum(text_rows) == 4
    assert len(text_rows) == 1 or batch < 4
    assert (scores - whole).abs().max() < 1e-5


def test_table_encodes_each_image_and_each_unique_prompt_once():
    tower = tiny_clip.tower()
    reward = Cosine(tower, SMALL)
    images = torch.rand(3, 3, 32, 48)
    candidates = [PROMPTS[:3], [], [PROMPTS[3], PROMPTS[0]]]
    image_rows, text_rows = tiny_clip.counts(tower, "image"), tiny_clip.counts(tower, "text")
    table = reward.table(images, candidates)
    assert (image_rows, text_rows) == ([3], [4])
    assert [len(row) for row in table] == [3, 0, 2]
    for image, prompts, row in zip(images, candidates, table, strict=True):
        alone = [reward(image[None], [prompt]).item() for prompt in prompts]
        assert row.tolist() == pytest.approx(alone, abs=1e-5)


def test_scorers_of_images_alone_never_run_the_text_encoder():
    tower = tiny_clip.tower()
    text_rows = tiny_clip.counts(tower, "text")
    scores = Bright(tower, SMALL)(torch.rand(2, 3, 32, 32), ["a", "b"])
    table = Bright(tower, SMALL).table(torch.rand(2, 3, 32, 32), [["a", "b"], ["c"]])
    assert scores.shape == (2,)
    assert table[0][0] == table[0][1]
    assert text_rows == []


def test_a_batch_of_one_stays_a_batch():
    for reward in (Cosine(tiny_clip.tower(), SMALL), Bright(tiny_clip.tower(), SMALL)):
        assert reward(torch.rand(1, 3, 32, 32), ["a cat"]).shape == (1,)


def test_kept_embeddings_are_the_last_used_and_no_more_than_the_limit():
    tower = Letters()
    tower.texts(["a"])
    for start in range(0, KEEP_TEXTS, TEXT_BATCH):
        tower.texts(["a", *(f"x{start + i}" for i in range(TEXT_BATCH))])
    calls = len(tower.calls)
    tower.texts(["a"])  # used in every call, so never dropped
    assert len(tower.calls) == calls
    tower.texts(["x0"])  # the oldest was dropped
    assert tower.calls[-1] == ["x0"]


def test_texts_are_encoded_in_bounded_batches():
    tower = Letters()
    embedded = tower.texts([f"{'x' * (i % 60)}{i}" for i in range(600)])
    assert [len(prompts) for prompts in tower.calls] == [256, 256, 88]
    assert embedded.shape == (600, 64)


def test_order_and_repetition_of_prompts_are_kept():
    tower = Letters()
    assert tower.texts(["bb", "a", "bb", "ccc"]).argmax(1).tolist() == [2, 1, 2, 3]
    assert tower.calls == [["bb", "a", "ccc"]]


def test_trainable_text_weights_are_used_as_they_are_now():
    tower = Letters()
    tower.scale.requires_grad_(True)
    tower.texts(["a"]).sum().backward()
    assert tower.scale.grad is not None
    with torch.no_grad():
        tower.texts(["a"])
    assert len(tower.calls) == 2
    tower.scale.requires_grad_(False)
    tower.texts(["a"])
    assert len(tower.calls) == 3
    tower.load_state_dict(tower.state_dict())
    tower.texts(["a"])
    assert len(tower.calls) == 4
    nn.ModuleList([tower]).load_state_dict(nn.ModuleList([tower]).state_dict())  # as part of something larger
    tower.texts(["a"])
    assert len(tower.calls) == 5


def test_what_was_kept_in_one_precision_is_not_used_in_another():
    tower = Letters()
    tower.texts(["a"])
    with torch.autocast("cpu", torch.bfloat16):
        tower.texts(["a"])
    assert len(tower.calls) == 2
    tower.double()
    assert tower.texts(["a"]).dtype == torch.float64
    assert len(tower.calls) == 3


def test_embeddings_kept_under_inference_mode_serve_a_later_backward_pass():
    reward = Cosine(tiny_clip.tower(), SMALL)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        without = reward(images, PROMPTS[:2]).clone()
    images.requires_grad_()
    scores = reward(images, PROMPTS[:2])
    scores.sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(scores.detach(), without.detach(), rtol=1e-5, atol=1e-6)


def test_a_copy_keeps_and_forgets_for_itself():
    tower = Letters()
    tower.texts(["a"])
    twin = copy.deepcopy(tower)
    twin.load_state_dict(twin.state_dict())
    calls = len(tower.calls)
    tower.texts(["a"])
    assert len(tower.calls) == calls
    before = len(twin.calls)
    twin.texts(["a"])
    assert len(twin.calls) == before + 1


def test_a_caller_cannot_change_what_is_kept():
    tower = Letters()
    tower.texts(["a"]).zero_()
    assert tower.texts(["a"]).abs().sum() == 1
