"""The model card of a rewriter of prompts."""

from __future__ import annotations

from pathlib import Path

from t2ialign.methods.rewriter.config import LanguageConfig
from t2ialign.training.card import write_text
from t2ialign.version import __version__

LOAD_REWRITER = """```bash
t2ialign rewrite "a pair of crimson balls" --rewriter {output}
```"""


def write(cfg: LanguageConfig, *, method: str, data: str, metrics: dict[str, float]) -> Path:
    """Write README.md into the output folder, with the tags that model hubs read."""
    head: dict[str, object] = {
        "base_model": cfg.model,
        "license": "other",
        "license_name": "as-base-model-and-data",
        "library_name": "peft" if cfg.lora_rank else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["text-to-image", "prompt-rewriting", method, "t2ialign"],
    }
    facts: dict[str, object] = {
        "Data": data,
        "Steps": cfg.max_steps,
        "Trained": f"LoRA of rank {cfg.lora_rank}" if cfg.lora_rank else "all weights",
    }
    lead = f"`{cfg.model}` trained to rewrite prompts with `{method}` by t2ialign {__version__}."
    return write_text(cfg.output, head, lead, facts, [LOAD_REWRITER.format(output=cfg.output)], metrics)
