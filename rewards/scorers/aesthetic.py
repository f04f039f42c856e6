"""Aesthetic scores, whatever an image shows: linear heads on the image embedding of OpenAI's CLIP.

LAION v1 (LAION-AI/aesthetic-predictor, MIT), LAION v2 (christophschuhmann/improved-aesthetic-predictor,
Apache-2.0; an MLP without activations, which is one affine map) and Simulacra
(crowsonkb/simulacra-aesthetic-models, MIT; the embedding times the root of its dimension). The heads are
files of these GitHub repositories, pinned by their SHA-256.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import torch
from torch import Tensor, nn

from rewards.preprocess import CLIP_224, Geometry
from rewards.towers.clip_towers import load_tower
from rewards.towers.two_tower import Tower, TwoTower
from rewards.weights import find, load_state

NAMES: dict[str, dict[str, Any]] = {
    "aesthetic": {"head": "laion-v2-l14"},
    "aesthetic-v1": {"head": "laion-v1-l14"},
    "aesthetic-v1-b32": {"head": "laion-v1-b32"},
    "aesthetic-v1-b16": {"head": "laion-v1-b16"},
    "simulacra": {"head": "simulacra-l14"},
    "simulacra-b32": {"head": "simulacra-b32"},
    "simulacra-b16": {"head": "simulacra-b16"},
}
TABLE = {
    "aesthetic": (
        "christophschuhmann/improved-aesthetic-predictor, on CLIP L/14 | crop 224 | nothing | "
        "w . e + b, mostly 4 to 7 | yes | Apache-2.0"
    ),
    "aesthetic-v1, aesthetic-v1-b32, aesthetic-v1-b16": (
        "LAION-AI/aesthetic-predictor, on L/14, B/32, B/16 | crop 224 | nothing | w . e + b | yes | MIT"
    ),
    "simulacra, simulacra-b32, simulacra-b16": (
        "crowsonkb/simulacra-aesthetic-models | crop 224 | nothing | sqrt(D) w . e + b | yes | MIT"
    ),
}
CLIPS = {
    "b32": ("openai/clip-vit-base-patch32", "ViT-B-32-quickgelu"),
    "b16": ("openai/clip-vit-base-patch16", "ViT-B-16-quickgelu"),
    "l14": ("openai/clip-vit-large-patch14", "ViT-L-14-quickgelu"),
}
"""The CLIP each head was fitted on, by the end of its name: Hub id, and name in open_clip."""


class Published(NamedTuple):
    """A head's file: GitHub repository, name, SHA-256."""

    repository: str
    file: str
    sha256: str

    @property
    def url(self) -> str:
        """The address of the file at the commit whose hash is pinned."""
        return f"{RAW}/{self.repository}/{COMMITS[self.repository]}/{quote(self.file)}"


RAW = "https://raw.githubusercontent.com"
LAION_V1, LAION_V2 = "LAION-AI/aesthetic-predictor", "christophschuhmann/improved-aesthetic-predictor"
SIMULACRA = "crowsonkb/simulacra-aesthetic-models"
COMMITS = {
    LAION_V1: "6d122adad522ab246644d9dc1c6d7a3810ee255f",
    LAION_V2: "6934dd81792f086e613a121dbce43082cb8be85e",
    SIMULACRA: "701f7678b305acf8a0634350365a86beb95dd87d",
}
HEADS = {
    "laion-v2-l14": Published(
        LAION_V2,
        "sac+logos+ava1-l14-linearMSE.pth",
        "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    ),
    "laion-v1-l14": Published(
        LAION_V1,
        "sa_0_4_vit_l_14_linear.pth",
        "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
    ),
    "laion-v1-b32": Published(
        LAION_V1,
        "sa_0_4_vit_b_32_linear.pth",
        "c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f",
    ),
    "laion-v1-b16": Published(
        LAION_V1,
        "sa_0_4_vit_b_16_linear.pth",
        "8ad3923d7ecf019df20ecd2ab5542a3075fbba0278d239c0371345f3d7fcbde0",
    ),
    "simulacra-l14": Published(
        SIMULACRA,
        "models/sac_public_2022_06_29_vit_l_14_linear.pth",
        "f77d1d0f4bb04b0ff8e60c5747fd0bfff0cc4a85263a6106627522c06eae85c6",
    ),
    "simulacra-b32": Published(
        SIMULACRA,
        "models/sac_public_2022_06_29_vit_b_32_linear.pth",
        "64315370e2293a08cc2f4816ae9db715f935791569c1a57d84b943e482ea5e12",
    ),
    "simulacra-b16": Published(
        SIMULACRA,
        "models/sac_public_2022_06_29_vit_b_16_linear.pth",
        "cdc27b2196565bcb69f2692731084b0189612b98aae74adec033782469ab583c",
    ),
}


class Aesthetic(TwoTower):
    """w . e + b on the unit embedding e, mostly 4 to 7 of 10; the prompt is not read."""

    needs_text = False

    def __init__(self, tower: Tower, weight: Tensor, bias: Tensor, geometry: Geometry = CLIP_224) -> None:
        """weight (D,), bias () on unit embeddings (B, D)"""
        super().__init__(tower, geometry)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def head(self, image: Tensor, text: Tensor | None) -> Tensor:
        """Unit embeddings (B, D) of images -> (B,)"""
        if image.shape[-1] != len(self.weight):
            raise ValueError(
                f"got embeddings of {image.shape[-1]} dimensions for a head of {len(self.weight)}; expected "
                "the CLIP it was fitted on; pass that as clip="
            )
        return image @ self.weight + self.bias


def affine(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The state dict of a published head -> weight (D,) and bias () on unit embeddings, folded in fp64.

    Raises ValueError for any other layout, such as that of the heads with ReLU, which are no affine map.
    """
    names = set(state)
    layers = [f"layers.{index}" for index in (0, 2, 4, 6, 7)]
    if names == {"weight", "bias"}:  # LAION v1
        chain, factor = [""], 1.0
    elif names == {"linear.weight", "linear.bias"}:  # Simulacra
        chain, factor = ["linear."], math.sqrt(state["linear.weight"].shape[-1])
    elif names == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}:  # LAION v2
        chain, factor = [f"{layer}." for layer in layers], 1.0
    else:
        raise ValueError(
            f"got a head with {', '.join(sorted(names)[:4])}; expected weight and bias, linear.*, or "
            "layers.0, 2, 4, 6 and 7 (a head with activations is another model); check the file"
        )
    width = state[chain[0] + "weight"].shape[-1]
    weight, bias = torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    for prefix in chain:
        weight = state[prefix + "weight"].double() @ weight
        bias = state[prefix + "weight"].double() @ bias + state[prefix + "bias"].double()
    return (factor * weight).flatten().float(), bias.flatten()[0].float()


def build(
    head: str = "laion-v2-l14",
    weights: str | None = None,
    *,
    sha256: str | None = None,
    clip: str | None = None,
    architecture: str | None = None,
    dtype: str = "float32",
    geometry: Geometry | None = None,
    towers: dict[str, Tower] | None = None,
) -> Aesthetic:
    """A published head by name, or the one in the file `weights`, on the CLIP it belongs to or `clip`.

    A published head is looked for at OWNER/REPOSITORY/FILE of `weights.home`, and fetched to there from
    GitHub. Raises ValueError for an unknown head and for weights that are missing, of another hash or of
    another layout.
    """
    if weights is None and head not in HEADS:
        raise ValueError(f"got head {head!r}; expected one of {', '.join(HEADS)}; or pass weights=FILE")
    _, _, suffix = head.rpartition("-")
    if suffix not in CLIPS:
        raise ValueError(f"got head {head!r}; expected a name that ends in {', '.join(CLIPS)}; see CLIPS")
    if weights is None:
        known = HEADS[head]
        file = find(known.repository, known.file, sha256=sha256 or known.sha256, url=known.url)
    else:
        file = find(weights, sha256=sha256)
    weight, bias = affine(load_state(file))
    default, name = CLIPS[suffix]
    tower = load_tower(clip or default, architecture=architecture or name, dtype=dtype, towers=towers)
    if geometry is None:  # Simulacra's authors make RGB images before CLIP's preprocessing, LAION's do not
        geometry = Geometry(tower.size, rgb="first" if head.startswith("simulacra") else "last")
    reward = Aesthetic(tower, weight, bias, geometry)
    return reward.requires_grad_(False)
