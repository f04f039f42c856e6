"""The reward interface: what its boundary refuses, and how a name becomes a reward, without t2ialign."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import rewards
from rewards import LatentReward, Reward, assets
from rewards.failures import FailedRows, check_finite


class Redness(Reward):
    """Mean of the red channel; a row of score depends on its own row only."""

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        return images[:, 0].mean((1, 2))


class Squeezed(Reward):
    """The classic bug: squeeze() turns a batch of one into a scalar."""

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        return images.mean((2, 3)).mean(1, keepdim=True).squeeze()


class Late(LatentReward):
    """Larger for later (noisier) timesteps."""

    def score(self, latents: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        return latents.mean((1, 2, 3)) + t


def test_gradient_reaches_the_image() -> None:
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    Redness()(images, ["a", "b"]).sum().backward()
    assert images.grad is not None
    assert torch.equal(images.grad[:, 0], torch.full((2, 4, 4), 1 / 16))
    assert not images.grad[:, 1:].any()


def test_batch_of_one_must_stay_a_batch() -> None:
    assert Redness()(torch.ones(1, 3, 2, 2), ["a"]).tolist() == [1.0]
    assert Squeezed()(torch.ones(2, 3, 2, 2), ["a", "b"]).shape == (2,)
    with pytest.raises(ValueError, match=r"got float32 \(\) from Squeezed.score; expected float \(1,\)"):
        Squeezed()(torch.ones(1, 3, 2, 2), ["a"])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(4, 4), r"got images float32 \(4, 4\).*stack"),
        (torch.rand(1, 4, 4, 3), r"expected float \(B, 3, H, W\)"),
        (torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8), "divide uint8 by 255"),
        (torch.rand(1, 3, 4, 4) * 2 - 1.5, r"expected \[0, 1\]; map \[-1, 1\]"),
        (torch.full((1, 3, 4, 4), float("nan")), r"got pixels in \[nan, nan\]"),
        (torch.rand(0, 3, 4, 4), "skip empty batches"),
    ],
)
def test_images_outside_the_contract_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Redness()(images, ["a"] * len(images))


def test_rounding_slack_is_not_a_range_error() -> None:
    assert Redness()(torch.full((1, 3, 2, 2), 1.0005), ["a"]).item() == pytest.approx(1.0005)


def test_prompts_must_match_the_rows() -> None:
    images = torch.rand(2, 3, 4, 4)
    with pytest.raises(ValueError, match="got 1 prompts for 2 rows"):
        Redness()(images, ["a"])


def test_one_prompt_is_for_all_images_and_one_image_is_a_batch() -> None:
    class Length(Reward):
        def score(self, images: Tensor, prompts: list[str]) -> Tensor:
            return torch.tensor([float(len(prompt)) for prompt in prompts])

    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    assert Length()(images, "ab").tolist() == [2.0, 2.0]  # two letters are not two prompts
    score = Redness()(images[0], "a")
    assert score.shape == (1,)
    score.sum().backward()
    assert images.grad is not None and images.grad[0].any() and not images.grad[1].any()


def test_latent_reward_checks_its_boundary() -> None:
    latents, t = torch.zeros(2, 4, 8, 8), torch.tensor([1, 999])
    assert Late()(latents, t, ["a", "b"]).tolist() == [1.0, 999.0]
    with pytest.raises(ValueError, match="got t int64"):
        Late()(latents, t[:1], ["a", "b"])
    with pytest.raises(ValueError, match="got t float32"):
        Late()(latents, t / 1000, ["a", "b"])
    with pytest.raises(ValueError, match="got latents"):
        Late()(latents[0], t, ["a", "b"])


def test_default_category_groups_nothing() -> None:
    assert Redness().category("a cat") is None


MODULE = """
import torch
from rewards import Reward

class Constant(Reward):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def score(self, images, prompts):
        return torch.full((len(prompts),), self.value)

def build(value=0.25):
    return Constant(value) if value >= 0 else "no reward"
"""


def test_load_takes_any_importable_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ours_for_test").mkdir()
    (tmp_path / "ours_for_test" / "constant.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    images = torch.rand(1, 3, 2, 2)
    assert rewards.load("ours_for_test.constant")(images, ["a"]).item() == 0.25
    assert rewards.load("ours_for_test.constant", value=0.5)(images, ["a"]).item() == 0.5
    with pytest.raises(ValueError, match=r"got str from ours_for_test.constant.build"):
        rewards.load("ours_for_test.constant", value=-1.0)


@pytest.mark.parametrize("name", ["no_such_package.reward", "rewards.no_such_file", "qqq"])
def test_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=rf"got reward '{name}'; expected one of .*toy-oracle"):
        rewards.load(name)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("hpsv2.2", "hpsv2.1"),
        ("HPSv2.1", "hpsv2.1"),
        ("image_reward", "imagereward"),
        ("pick-score", "pickscore"),
        ("toy-oracl", "toy-oracle"),
        ("astetic", "aesthetic"),
    ],
)
def test_a_misspelt_name_is_told_its_neighbour(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf"got reward '{name}'; .* did you mean {near}\?$") as caught:
        rewards.load(name)
    assert len(str(caught.value)) < 160


def test_modules_that_are_no_reward_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"got json.decoder without a function build\(\)"):
        rewards.load("json.decoder")
    (tmp_path / "ours_that_lacks").mkdir()
    (tmp_path / "ours_that_lacks" / "something.py").write_text("import no_such_package_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ValueError, match=r"does not import \(ModuleNotFoundError: No module named 'no_such_package_at_all'\)"
    ):
        rewards.load("ours_that_lacks.something")


def test_a_clip_says_once_what_of_a_prompt_it_does_not_read(caplog: pytest.LogCaptureFixture) -> None:
    clip = rewards.load("toy-clip")
    prompts = ["a red circle", "a red circle and " * 12 + "a blue square"]
    for _ in range(2):
        clip(torch.ones(2, 3, 32, 32), prompts)
    (record,) = caplog.records
    assert record.name == "rewards.towers.tokens"
    assert "and the reward reads 30; cut: " in record.getMessage()
    assert "a blue square" in record.getMessage().partition("cut: ")[2]


def test_every_declared_name_is_served_by_its_own_file() -> None:
    served = rewards.names()
    assert served["toy-oracle"] == "rewards.toy.oracle"
    assert isinstance(rewards.load("toy-oracle"), Reward)


def test_asset_folder_errors_list_what_is_there() -> None:
    with pytest.raises(ValueError, match="got asset 'no-such'; expected"):
        assets.folder("no-such")


def test_works_with_t2ialign_blocked() -> None:
    """rewards is a distribution's second package: importing or using it must never need the first."""
    code = (
        "import sys; sys.modules['t2ialign'] = None\n"
        "import pkgutil, importlib, torch, rewards\n"
        "names = [m.name for m in pkgutil.iter_modules(rewards.__path__)]\n"
        "[importlib.import_module('rewards.' + name) for name in names]\n"
        "reward = rewards.load('toy-oracle')\n"
        "print(reward(torch.ones(1, 3, 32, 32), ['a red circle']).tolist())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[0.0]"  # a white canvas shows no circle


def test_an_error_in_code_of_the_users_is_one_line_that_names_the_reward_and_the_prompts():
    class Raises(Reward):
        def score(self, images: Tensor, prompts: list[str]) -> Tensor:
            return {"a": images}["b"]

    texts = ["first", "second", "third", "fourth"]
    message = r"got KeyError \('b'\) from Raises.score for 'first', 'second', 'third' and 1 more; expected"
    with pytest.raises(ValueError, match=message):
        Raises()(torch.rand(4, 3, 8, 8), texts)
    with pytest.raises(ValueError, match=message):
        rewards.score_all({"raises": Raises()}, torch.rand(4, 3, 8, 8), texts)


class Picky(Reward):
    """Fails for a prompt in the way that it names."""

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        scores = images.mean((1, 2, 3))
        if "memory" in prompts:
            raise MemoryError
        if "runtime" in prompts:
            raise RuntimeError("no such word")
        if "none" in prompts:
            return None  # type: ignore[return-value]
        return scores[:, None] if "shape" in prompts else scores


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("memory", r"got MemoryError \(no message\) from Picky.score for 'memory'; expected scores"),
        ("runtime", r"got RuntimeError \(no such word\) from Picky.score for 'runtime'; expected scores"),
        ("none", r"^'none': got a NoneType from Picky.score; expected a float tensor \(1,\)"),
        ("shape", r"^'shape': got float32 \(1, 1\) from Picky.score; expected float \(1,\)"),
    ],
)
def test_the_row_is_named_for_which_a_reward_of_the_users_fails(bad: str, message: str) -> None:
    with pytest.raises(FailedRows, match=message) as caught:
        Picky()(torch.rand(4, 3, 8, 8), ["good", bad, "fine", bad])
    assert caught.value.prompts == [bad] and "\n" not in str(caught.value)
    with pytest.raises(FailedRows, match=r"\(2 prompts of the batch fail\)$") as caught:
        Picky()(torch.rand(4, 3, 8, 8), ["good", bad, "fine", "memory" if bad != "memory" else "none"])
    assert len(caught.value.prompts) == 2
    assert Picky()(torch.rand(2, 3, 8, 8), ["good", "fine"]).shape == (2,)


def test_a_score_that_is_no_number_names_its_prompt() -> None:
    scores = torch.tensor([1.0, float("nan"), float("inf"), float("nan")])
    message = r"got a score of nan from brightness for 'b'; expected a finite number; .* \(2 prompts"
    with pytest.raises(FailedRows, match=message) as caught:
        check_finite("brightness", scores, ["a", "b", "c", "b"])
    assert caught.value.prompts == ["b", "c"]
    assert check_finite("brightness", scores[:1], ["a"]) is not None
