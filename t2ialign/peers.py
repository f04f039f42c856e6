"""What other training scripts call our settings: diffusers' example scripts and kohya's sd-scripts.

Names are those of diffusers' train_text_to_image_lora(_sdxl).py, train_dreambooth_lora(_sdxl).py and
train_diffusion_dpo(_sdxl).py (diffusers 0.42), and of kohya's train_network.py and sdxl_train_network.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rewards.renamed import current, updated, warn

ALIASES: dict[str, str] = {
    "adam_weight_decay": "weight_decay",
    "checkpointing_steps": "checkpoint_every",
    "checkpoints_total_limit": "checkpoint_limit",
    "dataset_name": "data",
    "dataset_split_name": "split",
    "enable_bucket": "buckets",
    "flip_aug": "flip",
    "gradient_accumulation_steps": "accumulate",
    "learning_rate": "lr",
    "log_with": "trackers",
    "lr_scheduler": "lr_schedule",
    "lr_warmup_steps": "lr_warmup",
    "max_train_steps": "max_steps",
    "mixed_precision": "precision",
    "network_alpha": "lora_alpha",
    "network_dim": "lora_rank",
    "network_weights": "init_lora",
    "optimizer_type": "optimizer",
    "output_dir": "output",
    "pretrained_model_name_or_path": "model",
    "proportion_empty_prompts": "caption_dropout_rate",
    "random_flip": "flip",
    "rank": "lora_rank",
    "report_to": "trackers",
    "resume_from_checkpoint": "resume",
    "sample_every_n_steps": "validate_every",
    "train_batch_size": "batch_size",
    "train_data_dir": "data",
    "validation_prompt": "validation_prompts",
}
"""Their name -> ours, where both mean the same: these are accepted."""

FORMER: dict[str, str] = {
    "guidance": "guidance_scale",
    "monitor_guidance": "monitor_guidance_scale",
    "num_steps": "num_inference_steps",
    "pictures": "images",
    "siblings": "candidates",
    "validation_guidance": "validation_guidance_scale",
}
"""What a setting was called at first -> its name: accepted, with a warning, until the next release."""

FORMER_VALUES: dict[str, dict[str, str]] = {"compare": {"siblings": "candidates"}}
"""A setting -> what its values were called at first -> their names."""

FORMER_FILES: dict[str, str] = {
    "shapes_heldout_prompts.txt": "toy_heldout_prompts.txt",
    "shapes_prompts.txt": "toy_prompts.txt",
}
"""What a file beside the recipes was called at first -> its name."""

VALUES: dict[str, dict[str, str]] = {
    "lr_scheduler": {"constant_with_warmup": "constant"},
    "mixed_precision": {"no": "fp32"},
    "optimizer_type": {"AdamW": "adamw", "AdamW8bit": "adamw8bit"},
    "log_with": {"all": "[tensorboard, wandb]"},
    "report_to": {"all": "[tensorboard, wandb]"},
}
"""An accepted name -> their value -> ours."""

INSTEAD: dict[str, str] = {
    "beta_dpo": "beta, on the scale of the Diffusion-DPO launcher: write beta=5000 for its 5000, and for the "
    "2500 of diffusers' script, whose margin lacks a factor of 1/2",
    "cache_dir": "the environment variable HF_HOME, which moves the cache of the Hub",
    "dataset_config_name": "a colon in data: write data=NAME:CONFIG",
    "enable_xformers_memory_efficient_attention": "attention: write attention=xformers",
    "instance_data_dir": "data, which holds pairs of images",
    "lora_layers": "lora_targets: write lora_targets=[to_q, to_k, to_v, to_out.0]",
    "lora_r": "lora_rank",
    "loss_type": "loss: write loss=dpo for sigmoid",
    "lr_num_cycles": "lr_schedule, which has no restarts",
    "lr_scheduler_type": "lr_schedule",
    "dataset_config": "data, which is a folder, a table or a name on the Hub",
    "max_train_epochs": "max_steps, which counts optimiser steps",
    "max_train_samples": "limit, which takes the first so many pairs",
    "no_hflip": "flip: write flip=false, which is the default",
    "num_train_epochs": "max_steps, which counts optimiser steps",
    "output_name": "output: the files in output=runs/NAME are named after the folder",
    "pretrained_vae_model_name_or_path": "model, a folder that holds the VAE which you want",
    "run_validation": "validation_prompts: naming some turns validation images on",
    "sample_every_n_epochs": "validate_every, which counts optimiser steps",
    "sample_prompts": "validation_prompts, which takes prompts, or files of prompts without options",
    "save_every_n_steps": "checkpoint_every; checkpoint_limit says how many checkpoints are kept",
    "sdpa": "attention: write attention=sdpa, which is the default",
    "use_8bit_adam": "optimizer: write optimizer=adamw8bit",
    "use_ema": "ema: write ema=0.9999, the decay",
    "v_parameterization": "prediction_type: write prediction_type=v_prediction",
    "vae": "model, a folder that holds the VAE which you want",
    "vae_batch_size": "encode_batch, which counts pairs",
    "vae_encode_batch_size": "encode_batch, which counts pairs",
    "validate_every_n_steps": "evaluate_every",
    "validation_epochs": "validate_every, which counts optimiser steps",
    "xformers": "attention: write attention=xformers",
    "zero_terminal_snr": "rescale_betas_zero_snr: write rescale_betas_zero_snr=true",
}
"""Their name -> what to use here where the meaning is not quite the same, or the value is another one."""

ABSENT: dict[str, tuple[str, ...]] = {
    "AdamW has the betas 0.9 and 0.999 and eps 1e-8": ("adam_beta1", "adam_beta2", "adam_epsilon"),
    "images and prompts are always encoded once, into a cache": (
        *("cache_latents", "cache_latents_to_disk", "cache_text_encoder_outputs"),
        *("cache_text_encoder_outputs_to_disk", "pre_compute_text_embeddings", "dataloader_num_workers"),
        *("persistent_data_loader_workers", "max_data_loader_n_workers", "text_encoder_batch_size"),
    ),
    "columns are found by their names, which docs/data.md lists": (
        *("image_column", "caption_column", "caption_extension", "caption_extention", "in_json"),
    ),
    "images are cropped at the centre, or kept in their aspect ratio with buckets=true": (
        *("center_crop", "random_crop", "bucket_reso_steps", "min_bucket_reso", "max_bucket_reso"),
        *("bucket_no_upscale", "image_interpolation_mode", "color_aug", "face_crop_aug_range"),
    ),
    "text encoders are not trained": (
        *("train_text_encoder", "text_encoder_lr", "unet_lr", "network_train_unet_only"),
        *("network_train_text_encoder_only", "adam_weight_decay_text_encoder"),
    ),
    "training is by preference or reward, without images of one subject or class": (
        *("instance_prompt", "class_prompt", "class_data_dir", "num_class_images", "prior_loss_weight"),
        *("with_prior_preservation", "reg_data_dir", "repeats", "dataset_repeats", "sample_batch_size"),
    ),
    "the losses are those of the papers, without such a weight or noise": (
        *("snr_gamma", "min_snr_gamma", "scale_v_pred_loss_like_noise_pred", "noise_offset", "debug_loss"),
        *("huber_schedule", "huber_c", "huber_scale", "ip_noise_gamma", "multires_noise_iterations"),
        *("multires_noise_discount", "adaptive_noise_scale", "do_edm_style_training", "is_turbo"),
        *("min_timestep", "max_timestep", "masked_loss", "alpha_mask", "weighting_scheme"),
    ),
    "a LoRA here is a plain one": (
        *("lora_dropout", "network_dropout", "use_dora", "network_module", "network_args"),
        *("scale_weight_norms", "dim_from_weights", "base_weights", "lora_bias", "use_peft"),
    ),
    "the optimisers are adamw and adamw8bit": (
        *("prodigy_beta3", "prodigy_decouple", "prodigy_use_bias_correction", "prodigy_safeguard_warmup"),
        *("optimizer_args", "use_lion_optimizer", "lr_power", "lr_scheduler_args", "scale_lr"),
        *("lr_scheduler_num_cycles", "lr_scheduler_power", "lr_decay_steps"),
    ),
    "the result and every checkpoint are written as safetensors, for kohya's readers and for diffusers": (
        *("output_kohya_format", "save_model_as", "use_safetensors", "save_precision", "save_state"),
        *("save_state_on_train_end", "save_last_n_steps", "save_every_n_epochs", "no_metadata"),
    ),
    "logs are written to output/logs": (
        *("logging_dir", "tracker_name", "log_prefix", "log_tracker_name", "wandb_run_name"),
    ),
    "nothing is sent to the Hub; huggingface-cli upload does it": (
        *("push_to_hub", "hub_model_id", "hub_token", "huggingface_repo_id", "huggingface_token"),
    ),
    "validation images are sampled from validation_prompts by DDIM, also before the first step": (
        *("sample_at_first", "sample_sampler", "validation_images"),
    ),
    "captions are used as they are": (
        *("shuffle_caption", "keep_tokens", "caption_prefix", "caption_suffix"),
        *("max_token_length", "tokenizer_max_length", "tokenizer_name", "caption_separator"),
        *("text_encoder_use_attention_mask", "class_labels_conditioning"),
    ),
    "how a run uses the machine follows from precision and the hardware": (
        *("allow_tf32", "local_rank", "lowram", "highvram", "full_fp16", "full_bf16", "fp8_base"),
        *("torch_compile", "no_half_vae", "mem_eff_attn", "prior_generation_precision", "offload"),
        "enable_npu_flash_attention",
    ),
}
"""What replaces it here -> their names that have no counterpart here."""


def advice(name: str) -> str | None:
    """What to do about a name of another script that is not accepted, or None for any other name."""
    if name in INSTEAD:
        return f"use {INSTEAD[name]}"
    reasons = (why for why, names in ABSENT.items() if name in names)
    return next((f"there is no such setting here: {why}" for why in reasons), None)


def renamed_value(key: str, value: Any) -> Any:
    """A value of a setting under today's name, with a warning; prompts and places are nobody's names."""
    if _is_free(key):
        return value
    if isinstance(value, list | tuple):
        return [renamed_value(key, item) for item in value]
    if isinstance(value, dict):
        return {name: renamed_value(name, item) for name, item in value.items()}
    if not isinstance(value, str):
        return value
    if (now := _value(key, value)) != value:
        warn(f"{key}={value}", f"{key}={now}")
    return current(now)


def updated_settings(known: Collection[str], saved: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as an earlier release saved them, under today's names: without a warning, nobody typed them.

    known: the names of the settings that there are today.
    """
    names = {key: key if key in known else FORMER.get(key, key) for key in saved}
    return {
        now: former_file(saved[key]) if _is_free(key) else updated(_value(key, saved[key]))
        for key, now in names.items()
    }


def former_file(value: Any) -> Any:
    """Where a file of the recipes lies today if it is gone from that path, or the value itself."""
    place = Path(value) if isinstance(value, str) and len(value) < 1000 else Path()
    known = place.name in FORMER_FILES and not place.exists()
    return str(place.with_name(FORMER_FILES[place.name])) if known else value


def _value(key: str, value: Any) -> Any:
    """Today's name of a value, or the value itself."""
    return FORMER_VALUES.get(key, {}).get(value, value) if isinstance(value, str) else value


def _is_free(key: str) -> bool:
    """Whether the value of a setting is nobody's name, but a prompt or a place."""
    return "prompt" in str(key) or key in ("data", "init_lora", "output", "resume")
