"""The settings that every trainer shares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from t2ialign.config import Config


class LoopConfig(Config):
    """Settings of the training loop, which are the same for all methods that use it."""

    FREE: ClassVar[frozenset[str]] = frozenset(
        {
            *("output", "resume", "max_steps", "batch_size", "accumulate"),
            *("checkpoint_every", "checkpoint_limit", "log_every", "trackers", "evaluate_every"),
            *("lr", "max_grad_norm", "precision"),  # what mends a run that came to NaN
        }
    )
    """Settings that a resumed run may change, as long as the global batch stays the same."""

    output: Path = Path("runs/new")
    """The folder that the results are written to. A folder that is already in use is an error, unless the run
    is resumed."""
    resume: str | None = None
    """Set this to latest to continue from the newest complete checkpoint in output, if there is one, or to
    the path of a checkpoint to continue from that one."""
    seed: int = 0
    """The seed of every random draw of the run."""

    max_steps: int = Field(default=1000, ge=1)
    """The number of optimiser steps."""
    batch_size: int = Field(default=4, ge=1)
    """The number of rows per process and micro-step."""
    accumulate: int = Field(default=1, ge=1)
    """The number of micro-steps whose gradients are averaged into one optimiser step. The global batch size
    is batch_size x accumulate x number of processes."""
    lr: float = Field(default=1e-5, gt=0)
    """The peak learning rate."""
    lr_schedule: Literal["constant", "linear", "cosine", "polynomial"] = "constant"
    """How the learning rate changes after the warm-up."""
    lr_warmup: int = Field(default=0, ge=0)
    """The number of optimiser steps over which the learning rate rises from 0 to its peak."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """The optimiser: adamw, or adamw8bit, which stores its moments in 8 bits and needs bitsandbytes and a
    GPU."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """The weight decay of the AdamW optimiser."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """The gradient is clipped to this global norm; 0 switches clipping off."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """The decay of an exponential moving average of the weights, which is then what is saved and evaluated; 0
    switches it off."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """The number format in which the network computes. Trained weights and losses are always held in fp32."""

    checkpoint_every: int = Field(default=100, ge=1)
    """The number of optimiser steps between two checkpoints."""
    checkpoint_limit: int = Field(default=2, ge=0)
    """The number of newest checkpoints that stay on disk; 0 keeps all of them."""
    log_every: int = Field(default=1, ge=1)
    """The number of optimiser steps between two rows that are sent to the trackers. The file metrics.jsonl
    gets a row at every step."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """The trackers that the metrics are sent to: tensorboard, wandb or both. The file metrics.jsonl is always
    written."""
    evaluate_every: int = Field(default=100, ge=1)
    """The number of optimiser steps between two measurements on held-out data."""


class TrainConfig(LoopConfig):
    """Settings of every trainer of an image model."""

    FREE: ClassVar[frozenset[str]] = LoopConfig.FREE | {
        *("attention", "gradient_checkpointing", "validate_every", "validation_prompts"),
        *("num_validation_images", "validation_steps", "validation_guidance_scale"),
        # Of the weights; the monitor's own journal says what of these may change.
        *("monitor_prompts", "monitor_rewards", "monitor_images", "monitor_steps", "monitor_guidance_scale"),
        *("stop_on_hack", "keep_best"),
    }

    model: str = "toy"
    """The model to align: toy (the toy model), a diffusers folder, a single .safetensors or .ckpt
    file, or a Hub id."""
    family: str | None = None
    """The family of models that the settings are for: sd1, sd2, sdxl, sd3, flux or z-image. A model of
    another one is refused before its weights are read. None is any."""
    variant: str | None = None
    """The variant of the weight files to read, such as fp16, where a folder or a Hub repository has
    several."""
    revision: str | None = None
    """The branch, tag or commit to read where model is a Hub id."""
    clip_skip: int | None = Field(default=None, ge=0)
    """The number of last text-encoder layers to skip, as diffusers counts them: 1 is what A1111 calls clip
    skip 2."""
    prediction_type: Literal["epsilon", "v_prediction"] | None = None
    """What the network predicts, the noise (epsilon) or v. None follows the files of the model."""
    rescale_betas_zero_snr: bool | None = None
    """Whether the last training timestep is pure noise (zero signal-to-noise ratio). None follows the files
    of the model."""
    attention: Literal["sdpa", "xformers"] = "sdpa"
    """The implementation of attention: PyTorch's sdpa, or xformers, which has to be installed as the extra of
    that name."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass, which takes less memory and about a third more time."""
    lora_rank: int = Field(default=16, ge=0)
    """The rank of the LoRA. With 0 all weights are trained, and a frozen copy of them is held in memory as
    the reference."""
    lora_alpha: float | None = Field(default=None, gt=0)
    """The strength of the LoRA (alpha); none sets it to the rank."""
    lora_targets: tuple[str, ...] | None = None
    """The names of the layers that get a LoRA; none is those of the model's family."""
    init_lora: Path | None = None
    """The file or folder of a LoRA whose weights the training starts from, with a fresh optimiser; none
    starts from the base model. It has to have the rank and the layers of this run. The reference stays the
    base model without any LoRA."""

    validation_prompts: tuple[str, ...] = ()
    """The prompts, or files of prompts, whose images are rendered during training."""
    validate_every: int = Field(default=100, ge=1)
    """The number of optimiser steps between two renders of the validation prompts."""
    num_validation_images: int = Field(default=4, ge=1)
    """The number of images per validation prompt, with the same seeds each time."""
    validation_steps: int = Field(default=20, ge=1)
    """The number of denoising steps of a validation image."""
    validation_guidance_scale: float = Field(default=5.0, ge=1)
    """The scale of classifier-free guidance for validation images; 1 is off."""

    monitor_prompts: str | None = None
    """A file of prompts, or one prompt, that training never sees. Their images are rendered and scored every
    evaluate_every optimiser steps, to detect reward hacking."""
    monitor_rewards: tuple[str, ...] = ()
    """The names of held-out rewards that score the monitor's images. The reward that is trained cannot be one
    of them."""
    monitor_images: int = Field(default=4, ge=2)
    """The number of images per monitor prompt, with the same seeds each time."""
    monitor_steps: int = Field(default=20, ge=1)
    """The number of denoising steps of a monitor image."""
    monitor_guidance_scale: float = Field(default=5.0, ge=1)
    """The scale of classifier-free guidance for monitor images; 1 is off."""
    stop_on_hack: bool = False
    """Stop the run once a held-out reward falls significantly while the trained reward still rises."""
    keep_best: str | None = None
    """The name of one of monitor_rewards. The weights with the highest score by it are kept in
    output/best."""

    @model_validator(mode="after")
    def _starts_from_what_it_trains(self) -> Self:
        if self.init_lora is not None and not self.lora_rank:
            raise ValueError(
                f"got init_lora={self.init_lora} with lora_rank=0; expected the rank of that LoRA; set "
                "lora_rank, or merge the LoRA into the model and leave out init_lora"
            )
        return self

    @property
    def sides(self) -> tuple[int, ...]:
        """The sides of training images in pixels, those that are set."""
        return ()

    def for_family(self, family: str) -> Self:
        """The settings for a family of models, "sd1", "sd2" or "sdxl": some defaults depend on it."""
        return self


class PathConfig(TrainConfig):
    """Settings of a trainer that samples paths to learn from."""

    kernel: Literal["ddim", "flow_sde", "cps"] = "ddim"
    """The step of a path: ddim, flow_sde (flow models only) or cps; diffusion/kernels.py has the formulas."""
    eta: float = Field(default=1.0, gt=0)
    """Noise of the kernel: eta of ddim (1 is DDPM), a of flow_sde and cps."""

    @model_validator(mode="after")
    def _noise_of_the_kernel(self) -> Self:
        if self.kernel != "flow_sde" and self.eta > 1:
            raise ValueError(f"got eta={self.eta:g} with kernel={self.kernel}; expected at most 1; lower it")
        return self


class PresetConfig(PathConfig):
    """The same with published recipes: `preset` names the one whose values become the defaults."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Name -> the values of a recipe."""

    @model_validator(mode="wrap")
    @classmethod
    def _fill_from_preset(cls, values: dict[str, Any], handler: ModelWrapValidatorHandler[Self]) -> Self:
        preset = values.get("preset", cls.model_fields["preset"].default)
        cfg = handler({**cls.PRESETS.get(str(preset), {}), **values})
        cfg.model_fields_set.intersection_update(values)  # a preset's values count as defaults
        return cfg

    def with_defaults(self, recipe: Mapping[str, Any]) -> Self:
        """A copy with these values in place of defaults; what was set stays."""
        return self.model_copy(update={k: v for k, v in recipe.items() if k not in self.model_fields_set})
