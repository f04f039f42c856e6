"""The base of the trainers of a rewriter: TRL runs the loop; here are settings, resume, metrics, results.

A rewriter is a language model, so `training.loop` has nothing for it. TRL (the extra [rewrite]) trains it and
writes its own checkpoints; this file gives it the settings, errors and output folder of our other methods.
"""

from __future__ import annotations

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rewards import assets
from rewards.foreign import reading
from rewards.hub import check_repository
from rewards.permissions import share
from rewards.tensor_files import save_pretrained
from rewards.weights import align_weights, located
from t2ialign import config
from t2ialign.io.locks import check_free
from t2ialign.methods.rewriter import card
from t2ialign.methods.rewriter.checkpoints import (
    NAME,
    check_finite,
    drop_after,
    seal,
    step_of,
    whole_checkpoint,
    writing,
)
from t2ialign.methods.rewriter.config import LanguageConfig
from t2ialign.progress import Progress
from t2ialign.rewriting.instructions import PRESETS
from t2ialign.rewriting.load import ASSET, DEFAULT, TOY
from t2ialign.training import plan
from t2ialign.training.facts import Facts
from t2ialign.training.inputs import check_inputs
from t2ialign.training.log import METRICS, Told, check_trackers, keep_rows, last_metrics, read_rows
from t2ialign.training.output import CHECKPOINTS, check_unused, replaceable

CONFIG_FILE, LOGS = "config.yaml", "logs"
TENSORBOARD = "tensorboard"
NOTHING = "resume=latest found no whole checkpoint in it to continue, so "

log = logging.getLogger(__name__)


def start(cfg: LanguageConfig) -> Path | None:
    """The checkpoint to go on from, or None; leaves the settings in the output folder.

    On resume newer checkpoints, which a kill left torn, are removed, and damaged ones set aside; before the
    first whole one it is a fresh start. Raises ValueError without TRL, for an output in use, if all
    checkpoints are damaged, and for settings that make it another run.
    """
    if find_spec("trl") is None:
        raise ValueError(
            "got no package trl, which trains rewriters; expected it; pip install 't2ialign[rewrite]'"
        )
    if cfg.preset not in PRESETS:
        raise ValueError(f"got preset {cfg.preset!r}; expected one of {', '.join(PRESETS)}; choose one")
    if PRESETS[cfg.preset].raw is not None:
        raise ValueError(
            f"got preset={cfg.preset}, of models that continue a prompt; expected one for models that answer "
            "a chat; choose trained or general"
        )
    check_trackers(cfg.trackers)
    check_inputs(cfg)
    resumed = None
    if cfg.resume is None:
        check_unused(cfg.output)
    elif (resumed := whole_checkpoint(cfg.output)) is None:
        check_free(cfg.output, "output=", advice=NOTHING, passing=_unfinished)
        log.info("got resume=latest, and %s holds no checkpoint yet: starting from the beginning", cfg.output)
    else:
        _check_same(cfg, resumed)
    drop_after(cfg.output, resumed)
    cfg.output.mkdir(parents=True, exist_ok=True)
    config.save(cfg, cfg.output / CONFIG_FILE)
    keep_rows(cfg.output / METRICS, step_of(resumed) if resumed else -1)
    return resumed


def load(cfg: LanguageConfig) -> tuple[Any, Any]:
    """(model, tokenizer): a frozen model under a LoRA in the precision of the run, else fp32.

    Raises ValueError for a model that does not chat, and OSError if there is none.
    """
    import torch
    from transformers import AutoTokenizer

    dtype = torch.bfloat16 if cfg.precision == "bf16" and cfg.lora_rank else torch.float32
    folder, revision = located(_source(cfg))
    check_repository(folder, "config.json", revision)
    with reading(folder, "a causal language model of transformers"):
        tokenizer = AutoTokenizer.from_pretrained(folder, revision=revision, trust_remote_code=False)
        model = _model(cfg, folder, revision, dtype)
    if tokenizer.chat_template is None:
        raise ValueError(f"got {cfg.model} without a chat template; expected a chat model; choose another")
    align_weights(model)
    return model, tokenizer


def _model(cfg: LanguageConfig, folder: str, revision: str | None, dtype: Any) -> Any:
    if from_lora(cfg):
        from peft import AutoPeftModelForCausalLM

        whole = AutoPeftModelForCausalLM.from_pretrained(folder, torch_dtype=dtype, trust_remote_code=False)
        return whole.merge_and_unload()
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, revision=revision, dtype=dtype, trust_remote_code=False
    )


def from_lora(cfg: LanguageConfig) -> bool:
    """Whether the rewriter to start from is a LoRA alone; it is merged, and so is the result."""
    return (Path(located(_source(cfg))[0]) / "adapter_config.json").is_file()


def chat_of(cfg: LanguageConfig, prompt: str) -> list[dict[str, str]]:
    """The chat that a rewriter answers."""
    return PRESETS[cfg.preset].messages(prompt, DEFAULT)


def arguments(cfg: LanguageConfig) -> dict[str, Any]:
    """The settings under the names of transformers' TrainingArguments."""
    return {
        "output_dir": str(cfg.output / CHECKPOINTS),
        "seed": cfg.seed,
        "max_steps": cfg.max_steps,
        "per_device_train_batch_size": cfg.batch_size,
        "gradient_accumulation_steps": cfg.accumulate,
        "learning_rate": cfg.lr,
        "lr_scheduler_type": "constant_with_warmup" if cfg.lr_schedule == "constant" else cfg.lr_schedule,
        "warmup_steps": cfg.lr_warmup,
        "bf16": cfg.precision == "bf16",
        "gradient_checkpointing": cfg.gradient_checkpointing,
        "save_steps": cfg.checkpoint_every,
        "save_total_limit": 2,
        "logging_steps": 1,
        "disable_tqdm": True,
        "report_to": [name for name in cfg.trackers if name != TENSORBOARD] or "none",
    }


def lora(cfg: LanguageConfig) -> Any:
    """The LoRA of all linear layers, or None where all weights are trained."""
    from peft import LoraConfig

    if not cfg.lora_rank:
        return None
    return LoraConfig(
        r=cfg.lora_rank, lora_alpha=cfg.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def fit(
    trainer: Any,
    cfg: LanguageConfig,
    checkpoint: Path | None,
    *,
    method: str,
    data: str,
    facts: Facts,
    on_step: Told | None = None,
    on_evaluation: Told | None = None,
) -> dict[str, float]:
    """Train to the end with a row of metrics a step, then write weights, tokenizer and card to the output.

    facts: what the run plan, which is printed first, says of the data. on_step, on_evaluation: as `Loop.fit`
    has them. Gives the last metrics.
    """
    from transformers import PrinterCallback
    from transformers.integrations import TensorBoardCallback

    trainer.remove_callback(PrinterCallback)  # what stands in for its bar, which `arguments` switches off
    trainer.add_callback(_rows_of(cfg.output, method, on_step, on_evaluation))
    trainer.add_callback(_sealing(trainer.accelerator, cfg))
    if TENSORBOARD in cfg.trackers:  # transformers takes its folder from the environment alone
        board = TensorBoardCallback()
        board.logging_dir = str(cfg.output / LOGS)
        trainer.add_callback(board)
    plan.announce_language(trainer, cfg, method, facts)
    with writing(cfg.output):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.accelerator.is_main_process:
        model = trainer.accelerator.unwrap_model(trainer.model)
        # A second LoRA would name the model below the first one.
        model = model.merge_and_unload() if cfg.lora_rank and from_lora(cfg) else model
        with writing(cfg.output):
            save_pretrained(model, cfg.output)
            share(cfg.output)
            save_pretrained(trainer.processing_class, cfg.output)
        rows = read_rows(cfg.output / METRICS)
        card.write(cfg, method=method, data=data, metrics=rows[-1] if rows else {})
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()  # a group that is left behind may abort its process at the exit
    return last_metrics(cfg.output / METRICS)


def _rows_of(output: Path, method: str, on_step: Told | None, on_evaluation: Told | None) -> Any:
    from transformers import TrainerCallback

    class Rows(TrainerCallback):
        """Appends what TRL logs, under its names, with the step, and shows how far the run is.

        A run that diverged ends.
        """

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            main = state.is_world_process_zero
            self.bar: Progress = Progress(
                total=state.max_steps, initial=state.global_step, desc=method, disable=not main
            )

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.update()

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.close()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            check_finite(logs or {}, output, state.global_step)
            if state.is_world_process_zero and logs:
                row = {name: value for name, value in logs.items() if isinstance(value, int | float)}
                with (output / METRICS).open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps({"step": state.global_step, **row}) + "\n")
                told = on_evaluation if any(name.startswith("eval_") for name in row) else on_step
                if told is not None and row.keys() & {"loss", "eval_loss"}:  # and not the summary at the end
                    told(state.global_step, row)

    return Rows()


def _sealing(accelerator: Any, cfg: LanguageConfig) -> Any:
    from transformers import TrainerCallback

    class Sealing(TrainerCallback):
        """Adds settings and hashes to each checkpoint, when all processes have written their parts of it."""

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            accelerator.wait_for_everyone()
            if state.is_world_process_zero:
                folder = Path(args.output_dir) / f"{NAME}{state.global_step}"
                config.save(cfg, folder / CONFIG_FILE)
                seal(folder)

    return Sealing()


def _source(cfg: LanguageConfig) -> str:
    return str(assets.folder(ASSET)) if cfg.model == TOY else cfg.model


def _unfinished(item: Path) -> bool:
    """Whether a run that has no whole checkpoint left this; it is written again."""
    return item.name in (METRICS, CHECKPOINTS) or replaceable(item)


def _check_same(cfg: LanguageConfig, checkpoint: Path) -> None:
    file = checkpoint / CONFIG_FILE
    file = file if file.is_file() else cfg.output / CONFIG_FILE  # of an older version
    old = config.load(type(cfg), file)
    for name in sorted(set(type(cfg).model_fields) - cfg.FREE):
        before, now = getattr(old, name), getattr(cfg, name)
        if before != now:
            raise ValueError(
                f"got {name}={now!r} on resume; expected {before!r}, as in {file}; "
                "restore it, or start anew in another output"
            )
