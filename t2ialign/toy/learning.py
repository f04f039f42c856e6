"""How each network of the toy world is trained: what a step sees, and its loss."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPModel, CLIPTextModel

from t2ialign.toy.fit import Plan, fit, rows, share
from t2ialign.toy.networks import new_flow_scheduler, new_scheduler, new_vae

CAPTION_DROP = 0.10  # share of training rows without a caption, for classifier-free guidance
MAX_SNR = 5.0  # below this noise an image is decided, and its rows count less (min-SNR, Hang et al. 2023)


def train_vae(images: Tensor, folder: Path, plan: Plan, *, seed: int, batch: int = 64) -> AutoencoderKL:
    """images (N, 3, 32, 32) uint8 -> a VAE trained on L1 + 2 L2 + 1e-5 KL, scaling factor 1 / std."""
    torch.manual_seed(seed)
    vae = new_vae()

    def loss(step: int) -> Tensor:
        index, generator = rows(seed, step, batch, len(images))
        x = (images[index].float() / 127.5 - 1).to(vae.dtype)
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(vae.dtype)
        error = (vae.decode(posterior.mean + posterior.std * noise).sample - x).float()
        return error.abs().mean() + 2 * error.square().mean() + 1e-5 * posterior.kl().float().mean()

    fit(vae, loss, folder, plan)
    with torch.no_grad():
        latents = vae.encode(images[:1024].float() / 127.5 - 1).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return vae


def train_clip(
    model: CLIPModel,
    images: Tensor,
    tokens: tuple[Tensor, Tensor],
    folder: Path,
    plan: Plan,
    *,
    seed: int,
    batch: int = 96,
) -> CLIPModel:
    """Contrastive training of image-caption pairs against the rest of the batch and against near misses.

    tokens: (N, 32) of each image's caption, and (N, M, 32) of M captions that differ from it in one detail.
    Beside the two usual cross-entropies, each image has to find its caption among its near misses, which are
    what a CLIP trained without them takes for the same bag of words (Yuksekgonul et al. 2023, NegCLIP).
    """
    model.set_attn_implementation("eager")  # several times as fast on towers so small
    captions, misses = tokens

    def loss(step: int) -> Tensor:
        index, generator = rows(seed, step, batch, len(images))
        miss = torch.randint(misses.shape[1], (batch,), generator=generator)
        ids = torch.cat([captions[index], misses[index, miss]])
        pixels = (images[index].float() / 127.5 - 1).to(model.dtype)
        logits = model(input_ids=ids, pixel_values=pixels).logits_per_image.float()
        same = (ids[:batch, None] == ids[None]).all(-1).float()
        of_text = same[:, :batch] / same[:, :batch].sum(0)
        return (
            F.cross_entropy(logits, same / same.sum(1, keepdim=True))
            + F.cross_entropy(logits[:, :batch].T, of_text.T)
        ) / 2

    fit(model, loss, folder, plan)
    return model


def train_denoiser(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    latents: Tensor,
    tokens: tuple[Tensor, Tensor],
    folder: Path,
    plan: Plan,
    *,
    seed: int,
    batch: int = 128,
    with_text: bool = True,
) -> None:
    """Noise prediction on cached latents (N, 4, 8, 8), of the denoiser and, `with_text`, its text encoder.

    tokens: (M, 32) of every distinct caption, the first of which is the empty prompt, and each image's row of
    them (N,). Rows are weighted by min(SNR, 5) / SNR, over the root of min(SNR, 5): between the weights of
    min-SNR, which spend most on the finish, and those of an error of x_0, so that a layout, which is decided
    at high noise, is learned as fast as an edge.
    """
    unet.set_default_attn_processor()  # PyTorch's fused attention is slow on heads so small
    text_encoder.set_attn_implementation("eager")
    part, (ids, caption) = share(batch), tokens
    alphas = new_scheduler().alphas_cumprod
    weights = loss_weights(alphas)
    states = None if with_text else encode(text_encoder, ids)

    def loss(step: int) -> Tensor:
        index, generator = rows(seed, step, batch, len(latents))
        x_0 = latents[index].float()
        eps, t = (
            torch.randn(x_0.shape, generator=generator),
            torch.randint(1000, (batch,), generator=generator),
        )
        alpha_bar = alphas[t].view(-1, 1, 1, 1)
        x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps
        dropped = torch.rand(batch, generator=generator) < CAPTION_DROP
        row = torch.where(dropped, 0, caption[index])[part]
        context = text_encoder(ids[row]).last_hidden_state if states is None else states[row].to(unet.dtype)
        out = unet(x_t[part].to(unet.dtype), t[part], context).sample.float()
        return ((out - eps[part]).square().mean((1, 2, 3)) * weights[t[part]]).mean()

    learned = nn.ModuleList([unet, text_encoder] if with_text else [unet])
    fit(learned, loss, folder, plan)


def loss_weights(alphas: Tensor) -> Tensor:
    """Weight of each timestep's squared error of eps, with mean 1."""
    snr = alphas / (1 - alphas)
    weights = snr.clamp(max=MAX_SNR).sqrt() / snr
    return weights / weights.mean()


@torch.no_grad()
def encode(text_encoder: CLIPTextModel, ids: Tensor) -> Tensor:
    """ids (M, 32) -> text states (M, 32, 96)."""
    return torch.cat([text_encoder.eval()(chunk).last_hidden_state for chunk in ids.split(500)])


@dataclass(frozen=True)
class States:
    """What the transformer of the flow model reads of each of M captions."""

    hidden: Tensor
    """(M, positions, width)"""
    pooled: Tensor
    """(M, width)"""


def train_transformer(
    transformer: SD3Transformer2DModel,
    latents: Tensor,
    text: tuple[States, Tensor],
    folder: Path,
    plan: Plan,
    *,
    seed: int,
    batch: int = 128,
) -> None:
    """Rectified flow on cached latents (N, 4, 8, 8): the velocity eps - x_0, each error of weight 1.

    text: the states of every distinct caption, the first of which is the empty prompt, and each image's row
    of them (N,). Noise levels are logit-normal and shifted as the scheduler's. Esser et al. 2024.
    """
    part, (states, caption) = share(batch), text
    shift = float(new_flow_scheduler().config.shift)

    def loss(step: int) -> Tensor:
        index, generator = rows(seed, step, batch, len(latents))
        x_0 = latents[index].float()
        eps = torch.randn(x_0.shape, generator=generator)
        level = torch.sigmoid(torch.randn(batch, generator=generator))
        sigma = shift * level / (1 + (shift - 1) * level)
        mixed = torch.lerp(x_0, eps, sigma.view(-1, 1, 1, 1))
        dropped = torch.rand(batch, generator=generator) < CAPTION_DROP
        row = torch.where(dropped, 0, caption[index])[part]
        out = transformer(
            mixed[part].to(transformer.dtype),
            timestep=1000 * sigma[part],
            encoder_hidden_states=states.hidden[row].to(transformer.dtype),
            pooled_projections=states.pooled[row].to(transformer.dtype),
        ).sample
        return (out.float() - (eps - x_0)[part]).square().mean()

    with sdpa_kernel(SDPBackend.MATH):  # the fused attention is slow on heads so small
        fit(transformer, loss, folder, plan)
