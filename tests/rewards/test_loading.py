"""`import rewards` costs nothing, and names, classes and modules of users load."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import rewards
from rewards import Prepared, Reward
from rewards.preprocess import Geometry


def run(code: str) -> str:
    """The output of a fresh process."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_quick_and_brings_no_torch():
    code = (
        "import sys, time; start = time.perf_counter(); import rewards; rewards.names()\n"
        "print(time.perf_counter() - start, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    runs = [run(code).split() for _ in range(3)]
    assert all(flags == ["False", "False"] for _, *flags in runs)
    assert min(float(seconds) for seconds, *_ in runs) < 0.2


def test_the_public_names_are_there():
    for name in rewards.__all__:
        assert getattr(rewards, name) is not None
    with pytest.raises(AttributeError, match="module 'rewards' has no attribute 'lod'"):
        _ = rewards.lod


def test_every_scorer_of_this_family_is_listed():
    served = rewards.names()
    for name, module in {
        "clipscore": "scorers.clip",
        "clipscore-b": "scorers.clip",
        "clipscore-l": "scorers.clip",
        "clipscore-h": "scorers.clip",
        "pickscore": "scorers.pickscore",
        "hpsv2": "scorers.hpsv2",
        "hpsv2.1": "scorers.hpsv2",
        "aesthetic": "scorers.aesthetic",
        "aesthetic-v1": "scorers.aesthetic",
        "simulacra": "scorers.aesthetic",
        "toy-clip": "toy.clip",
    }.items():
        assert served[name] == f"rewards.{module}"


MODULE = """
from rewards import Reward

class Constant(Reward):
    def __init__(self, value=0.25):
        super().__init__()
        self.value = value

    def score(self, images, prompts):
        return images.new_full((len(prompts),), self.value)

NUMBER = 3
"""


def test_a_class_of_ones_own_loads_by_module_and_name(tmp_path: Path, monkeypatch):
    (tmp_path / "ours_by_class").mkdir()
    (tmp_path / "ours_by_class" / "constant.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    images = torch.rand(1, 3, 2, 2)
    assert rewards.load("ours_by_class.constant:Constant", value=0.5)(images, ["a"]).item() == 0.5
    for name, wanted in {
        "ours_by_class.constant": r"constant without a function build\(\); .*name ours_by_class.constant:Con",
        "ours_by_class.constant:Missing": "constant without a subclass Missing of rewards.Reward",
        "ours_by_class.constant:NUMBER": "NUMBER, a int of ours_by_class.constant; expected a subclass",
    }.items():
        with pytest.raises(ValueError, match=f"got .*{wanted}"):
            rewards.load(name)
    with pytest.raises(
        ValueError, match=r"got options of .*Constant that do not fit: .*'size'; expected value"
    ):
        rewards.load("ours_by_class.constant:Constant", size=3)


class Mean(Prepared):
    """Mean of the prepared square times the length of the prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.geometry = Geometry(4)
        self.rows: list[int] = []

    def score_prepared(self, pixels: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        self.rows.append(len(pixels))
        return pixels.mean((1, 2, 3)) * torch.tensor([len(prompt) for prompt in prompts])


def test_table_scores_every_prompt_on_its_own_image():
    reward, images = Mean(), torch.rand(3, 3, 6, 5)
    candidates = [["a", "bb"], [], ["ccc"] * 70]
    table = reward.table(images, candidates)
    assert [row.shape for row in table] == [(2,), (0,), (70,)]
    assert reward.rows == [64, 8]  # in chunks
    alone = reward(images, ["a", "bb", "ccc"])
    assert table[0][0].item() == pytest.approx(alone[0].item())
    assert table[0][1] == pytest.approx(2 * alone[0].item())
    assert table[2].tolist() == pytest.approx([alone[2].item()] * 70)
    assert [row.shape for row in reward.table(images, [[], [], []])] == [(0,)] * 3


def test_table_checks_its_boundary():
    reward, images = Mean(), torch.rand(2, 3, 6, 5)
    with pytest.raises(ValueError, match="got 1 lists of prompts for 2 images"):
        reward.table(images, [["a"]])
    with pytest.raises(ValueError, match=r"expected a list of prompts for each; pass \[\[prompt\]\]"):
        reward.table(images, ["ab", "cd"])
    with pytest.raises(ValueError, match="got one string for 2 images"):
        reward.table(images, "ab")
    with pytest.raises(ValueError, match=r"got pixels in"):
        reward.table(images + 1, [["a"], ["b"]])


def test_a_reward_without_preparation_has_a_table_too():
    class Redness(Reward):
        def score(self, images, prompts):
            return images[:, 0].mean((1, 2))

    images = torch.rand(2, 3, 4, 4)
    assert Redness().table(images, [["a"], ["b", "c"]])[1].tolist() == [images[1, 0].mean().item()] * 2
