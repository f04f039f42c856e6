"""The validation prompts as one image: a row a prompt, a column a seed, the same noise each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from t2ialign.io import png_text
from t2ialign.models.base import Policy
from t2ialign.models.generate import generate
from t2ialign.progress import Progress
from t2ialign.training.settings import TrainConfig


def render(cfg: TrainConfig, policy: Policy, prompts: list[str], file: Path) -> Image.Image:
    """Sample every prompt with seeds 0..n - 1, and save the grid as a PNG file that says so."""
    columns = cfg.num_validation_images
    about = {"steps": cfg.validation_steps, "guidance": cfg.validation_guidance_scale, "model": cfg.model}
    cells: list[dict[str, Any]] = [
        {**about, "prompt": prompt, "seed": seed} for prompt in prompts for seed in range(columns)
    ]
    with Progress(total=columns * len(prompts), desc="validation images", unit="image", delay=3) as bar:
        images = generate(
            policy,
            [cell["prompt"] for cell in cells],
            [cell["seed"] for cell in cells],
            num_inference_steps=cfg.validation_steps,
            guidance_scale=cfg.validation_guidance_scale,
            batch_size=columns,
            progress=bar.update,
        )
    image = grid(images, columns)
    file.parent.mkdir(parents=True, exist_ok=True)
    height, width = images.shape[2:]
    png_text.save(image, file, png_text.grid_text(cells, columns, (width, height)))
    return image


def grid(images: Tensor, columns: int) -> Image.Image:
    """Images (N, 3, H, W) in [0, 1] -> one image, row by row. Raises ValueError for a part row."""
    if len(images) % columns:
        raise ValueError(
            f"got {len(images)} images; expected a multiple of {columns} columns; add or drop some"
        )
    height, width = images.shape[2:]
    rows = images.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2)  # (row, H, column, W, 3)
    pixels = (rows.reshape(-1, columns * width, 3).clamp(0, 1) * 255).round().to(torch.uint8)
    assert len(pixels) == len(images) // columns * height, "rows of the grid lost their height"
    return Image.fromarray(pixels.cpu().numpy())
