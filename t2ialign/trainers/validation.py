"""The validation prompts as one picture: a row a prompt, a column a seed, the same noise each time."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from t2ialign.models.generate import generate
from t2ialign.models.unet import UNetPolicy
from t2ialign.progress import Progress
from t2ialign.trainers.settings import TrainConfig


def render(cfg: TrainConfig, policy: UNetPolicy, prompts: list[str], file: Path) -> Image.Image:
    """Sample every prompt with seeds 0..n - 1, and save the grid as a PNG file."""
    columns = cfg.num_validation_images
    with Progress(total=columns * len(prompts), desc="validation images", unit="image", delay=3) as bar:
        images = generate(
            policy,
            [prompt for prompt in prompts for _ in range(columns)],
            [seed for _ in prompts for seed in range(columns)],
            num_steps=cfg.validation_steps,
            guidance=cfg.validation_guidance,
            batch_size=columns,
            progress=bar.update,
        )
    picture = grid(images, columns)
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)
    return picture


def grid(images: Tensor, columns: int) -> Image.Image:
    """Images (N, 3, H, W) in [0, 1] -> one picture, row by row. Raises ValueError for a part row."""
    if len(images) % columns:
        raise ValueError(
            f"got {len(images)} images; expected a multiple of {columns} columns; add or drop some"
        )
    height, width = images.shape[2:]
    rows = images.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2)  # (row, H, column, W, 3)
    pixels = (rows.reshape(-1, columns * width, 3).clamp(0, 1) * 255).round().to(torch.uint8)
    assert len(pixels) == len(images) // columns * height, "rows of the grid lost their height"
    return Image.fromarray(pixels.cpu().numpy())
