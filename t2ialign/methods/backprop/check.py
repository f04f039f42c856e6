"""A check for settings of train backprop that contradict each other, before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from t2ialign.diffusion.backprop import draw_plan
from t2ialign.diffusion.noise import generator

if TYPE_CHECKING:
    from t2ialign.methods.backprop.config import Config


def check(cfg: Config) -> None:
    """Raises ValueError for settings that contradict each other."""
    draw_plan(cfg.record, cfg.num_inference_steps, k=cfg.k, early_stop=cfg.early_stop, generator=generator(0))
    if cfg.loss != "maximise" and cfg.target is None:
        raise ValueError(
            f"got loss={cfg.loss} without target; expected a number of the reward's scale; set it"
        )
    if cfg.penalty == "kl" and not cfg.eta:
        raise ValueError(
            "got penalty=kl with eta=0, whose steps have no density; expected eta above 0; set it, or use l2"
        )
    if (cfg.penalty == "none") != (cfg.penalty_weight == 0):
        raise ValueError(
            f"got penalty={cfg.penalty} with penalty_weight={cfg.penalty_weight:g}; expected both or "
            "neither; set both"
        )
    if cfg.lv_samples and cfg.eta:
        raise ValueError(
            f"got lv_samples={cfg.lv_samples} with eta={cfg.eta:g}; expected eta=0: the re-noised step is a "
            "deterministic one; set eta=0"
        )
    if cfg.lv_samples and (cfg.record, cfg.k, cfg.early_stop) != ("last", 1, 0):
        raise ValueError(
            f"got lv_samples={cfg.lv_samples} with record={cfg.record}, k={cfg.k}, "
            f"early_stop={cfg.early_stop}; expected last, 1 and 0: only re-noised "
            "steps record; leave them out"
        )
