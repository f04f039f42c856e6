"""Whatever may take minutes shows how far it is: a bar that runs to its end, after 3 s of silence."""

import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest

from t2ialign.methods.dense import trainer as dense
from t2ialign.methods.dpo import trainer as dpo
from t2ialign.methods.offline import heldout
from t2ialign.models.load import load_policy
from t2ialign.progress import Progress
from t2ialign.training import prompts
from t2ialign.training.watch import heldout_reward, validation
from tests.methods.test_dense import dense_config  # noqa: F401  (a fixture)


@pytest.fixture
def bars(monkeypatch):
    """Watches a module's bars -> their (description, delay, total, units shown)."""
    seen = []

    class Watched(Progress):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.options = options

        def close(self):
            if hasattr(self, "options"):
                seen.append((self.options["desc"], self.options["delay"], self.total, self.n))
                del self.options
            super().close()

    def watch(module: ModuleType) -> list[tuple[str, int, int, int]]:
        monkeypatch.setattr(module, "Progress", Watched)
        return seen

    return watch


def test_validation_images(bars, toy_config, tiny_sd, tmp_path):
    seen, cfg = bars(validation), toy_config(num_validation_images=3, validation_steps=1)
    validation.render(cfg, load_policy(str(tiny_sd)), ["a", "b"], tmp_path / "grid.png")
    assert seen == [("validation images", 3, 6, 6)]


def test_held_out_pairs(bars, dpo_config, pair_cache):
    seen, trainer = bars(heldout), dpo.Trainer(dpo_config(), cache=pair_cache)
    trainer.evaluate()
    chunks = len(trainer.heldout.chunks)
    assert seen == [("held-out pairs", 3, chunks, chunks)] * 2  # policy and reference


def test_prompts_and_held_out_images(bars, dense_config, tmp_path):  # noqa: F811
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(f"image {i}" for i in range(40)))
    seen = bars(prompts)
    bars(heldout_reward)
    trainer = dense.Trainer(dense_config(prompts=str(file), heldout_prompts="a blue square"))
    assert seen == [("encoding prompts", 3, 40, 40)]
    trainer.evaluate()
    assert seen[1:] == [("held-out images", 3, 1, 1)]


class Shell:
    """What IPython says of itself in a cell of a notebook."""

    kernel = object()
    config: ClassVar[dict[str, object]] = {"IPKernelApp": {}}


def test_a_notebook_shows_a_bar_and_a_file_plain_lines(monkeypatch, capsys):
    """A cell's stderr is no terminal, and yet it shows bars."""
    with Progress(total=2, desc="draw", unit="image") as lines:
        lines.update(2)
    assert "t2ialign: draw: " not in capsys.readouterr().err  # it took no time
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=Shell))
    with Progress(total=2, desc="draw", unit="image") as bar:
        bar.update(2)
    assert "draw: 100%" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    with Progress(total=2, desc="draw", unit="image") as script:
        script.update(2)
    assert capsys.readouterr().err == ""
