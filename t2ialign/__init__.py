"""Align text-to-image diffusion models: score, train, sample, and prove that the result is better."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from t2ialign.version import __version__

if TYPE_CHECKING:
    from rewards import Reward
    from t2ialign.api import (
        best_of,
        evaluate,
        export,
        filter_pairs,
        judge_keypoints,
        make_pairs,
        mix,
        rewrite,
        sample,
        score,
        train,
    )
    from t2ialign.methods.backprop.config import Config as BackpropConfig
    from t2ialign.methods.backprop.trainer import Trainer as BackpropTrainer
    from t2ialign.methods.dense.config import Config as DenseConfig
    from t2ialign.methods.dense.trainer import Trainer as DenseTrainer
    from t2ialign.methods.dpo.config import Config as DPOConfig
    from t2ialign.methods.dpo.trainer import Trainer as DPOTrainer
    from t2ialign.methods.evaluator.config import Config as EvaluatorConfig
    from t2ialign.methods.evaluator.trainer import Trainer as EvaluatorTrainer
    from t2ialign.methods.grpo.config import Config as GRPOConfig
    from t2ialign.methods.grpo.trainer import Trainer as GRPOTrainer
    from t2ialign.methods.kto.config import Config as KTOConfig
    from t2ialign.methods.kto.trainer import Trainer as KTOTrainer
    from t2ialign.methods.lpo.config import Config as LPOConfig
    from t2ialign.methods.lpo.trainer import Trainer as LPOTrainer
    from t2ialign.methods.lrm.config import Config as LRMConfig
    from t2ialign.methods.lrm.trainer import Trainer as LRMTrainer
    from t2ialign.methods.reward.config import Config as RewardConfig
    from t2ialign.methods.reward.trainer import Trainer as RewardTrainer
    from t2ialign.methods.rewrite_grpo.config import Config as RewriteGRPOConfig
    from t2ialign.methods.rewrite_grpo.trainer import Trainer as RewriteGRPOTrainer
    from t2ialign.methods.rewrite_sft.config import Config as RewriteSFTConfig
    from t2ialign.methods.rewrite_sft.trainer import Trainer as RewriteSFTTrainer
    from t2ialign.methods.sft.config import Config as SFTConfig
    from t2ialign.methods.sft.trainer import Trainer as SFTTrainer
    from t2ialign.methods.tpo.config import Config as TPOConfig
    from t2ialign.methods.tpo.trainer import Trainer as TPOTrainer
    from t2ialign.models.base import Policy
    from t2ialign.models.load import load_policy

__all__ = [
    "BackpropConfig",
    "BackpropTrainer",
    "DPOConfig",
    "DPOTrainer",
    "DenseConfig",
    "DenseTrainer",
    "EvaluatorConfig",
    "EvaluatorTrainer",
    "GRPOConfig",
    "GRPOTrainer",
    "KTOConfig",
    "KTOTrainer",
    "LPOConfig",
    "LPOTrainer",
    "LRMConfig",
    "LRMTrainer",
    "Policy",
    "Reward",
    "RewardConfig",
    "RewardTrainer",
    "RewriteGRPOConfig",
    "RewriteGRPOTrainer",
    "RewriteSFTConfig",
    "RewriteSFTTrainer",
    "SFTConfig",
    "SFTTrainer",
    "TPOConfig",
    "TPOTrainer",
    "__version__",
    "best_of",
    "evaluate",
    "export",
    "filter_pairs",
    "judge_keypoints",
    "load_policy",
    "make_pairs",
    "mix",
    "rewrite",
    "sample",
    "score",
    "train",
]

_METHODS = {
    "Backprop": "backprop",
    "DPO": "dpo",
    "Dense": "dense",
    "Evaluator": "evaluator",
    "GRPO": "grpo",
    "KTO": "kto",
    "LPO": "lpo",
    "LRM": "lrm",
    "Reward": "reward",
    "RewriteGRPO": "rewrite_grpo",
    "RewriteSFT": "rewrite_sft",
    "SFT": "sft",
    "TPO": "tpo",
}
"""What the names of a method's classes begin with -> its folder in t2ialign/methods."""
_HOMES = {"Policy": "t2ialign.models.base", "Reward": "rewards", "load_policy": "t2ialign.models.load"}


def __getattr__(name: str) -> Any:
    """The public names, imported when first asked for: `import t2ialign` alone loads no library."""
    if name not in __all__:
        raise AttributeError(f"module 't2ialign' has no attribute {name!r}")
    for kind in ("Config", "Trainer"):
        method = _METHODS.get(name.removesuffix(kind)) if name.endswith(kind) else None
        if method is not None:
            return getattr(import_module(f"t2ialign.methods.{method}.{kind.lower()}"), kind)
    return getattr(import_module(_HOMES.get(name, "t2ialign.api")), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
