"""train dpo on ties and margins: what the losses read of the labels, from the file to the gradient."""

import json
from pathlib import Path

import pytest
import torch

from t2ialign.methods.dpo import trainer as dpo
from t2ialign.objectives.labelled import difference, ternary
from t2ialign.objectives.preference import denoising_ratio, mean_square


@pytest.fixture
def labelled(pair_folder: Path, tmp_path: Path) -> Path:
    """Forty pairs of bright and dark images with a margin, every fourth a tie."""
    rows = [
        {
            "prompt": f"image {i}",
            "jpg_0": str(pair_folder / "chosen" / f"{i}.png"),
            "jpg_1": str(pair_folder / "rejected" / f"{i}.png"),
            "label_0": 0.5 if i % 4 == 0 else 1,
            "label_1": 0.5 if i % 4 == 0 else 0,
            "margin": i / 10,
        }
        for i in range(40)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "pairs.jsonl"


def started(sharp_sd: Path, data: Path, output: Path, **changes: object) -> dpo.Trainer:
    values = {
        **{"model": str(sharp_sd), "data": str(data), "output": output, "max_steps": 4, "batch_size": 8},
        **{"accumulate": 1, "lora_rank": 4, "lr": 3e-3, "holdout": 0, "resolution": 32, "trackers": ()},
        **{"beta": 50, "safeguard": 0},
    }
    trainer = dpo.Trainer(dpo.Config.model_validate({**values, **changes}))
    for _ in range(3):
        trainer.update({})
    return trainer


def ratios(trainer: dpo.Trainer, batch) -> list[torch.Tensor]:
    """log pi / pi_ref of winner and loser."""
    own = [mean_square(residual) for residual in batch.residuals(trainer.policy)]
    with trainer.policy.reference():
        reference = [mean_square(residual) for residual in batch.residuals(trainer.policy)]
    return [denoising_ratio(*errors) for errors in zip(own, reference, strict=True)]


def test_ternary_keeps_ties(sharp_sd, labelled, tmp_path):
    trainer = started(sharp_sd, labelled, tmp_path / "run", loss="ternary", tie_width=0.5)
    assert trainer.cfg.ties == "soft" and trainer.count == 40
    batch = trainer.batch(4, 0)
    tied = batch.data.preference == 0.5
    assert tied.any() and not tied.all()
    expected = ternary(*ratios(trainer, batch), beta=50, tied=tied, tie_width=0.5)
    torch.testing.assert_close(trainer.loss(batch)[0], expected)


def test_difference_reads_the_margins(sharp_sd, labelled, tmp_path):
    changes = {"loss": "difference", "margin_scale": 2.0}
    trainer = started(sharp_sd, labelled, tmp_path / "run", **changes)
    assert trainer.count == 30
    batch = trainer.batch(4, 0)
    margins = batch.data.margin
    known = {round(i / 10, 4) for i in range(40) if i % 4}
    assert {round(float(one), 4) for one in margins} <= known
    expected = difference(*ratios(trainer, batch), beta=50, margin=2 * margins)
    torch.testing.assert_close(trainer.loss(batch)[0], expected)


def test_pairs_without_margins_are_one_line(sharp_sd, pair_folder, tmp_path):
    with pytest.raises(ValueError, match=r"got 40 of 40 pairs of .* without a margin, for loss=difference"):
        started(sharp_sd, pair_folder, tmp_path / "run", loss="difference")


def test_a_margin_that_is_no_number_names_the_row(sharp_sd, labelled, tmp_path):
    rows = labelled.read_text().replace('"margin": 0.7', '"margin": "much"')
    labelled.write_text(rows)
    with pytest.raises(ValueError, match="line 8: got margin 'much'"):
        started(sharp_sd, labelled, tmp_path / "run")


@pytest.mark.parametrize(("loss", "ties"), [("dpo", "soft"), ("ternary", "half"), ("difference", "soft")])
def test_ties_that_a_loss_cannot_read(loss, ties):
    with pytest.raises(ValueError, match=f"got ties={ties} with loss={loss}; expected ties=soft"):
        dpo.Config(data="x", loss=loss, ties=ties)
