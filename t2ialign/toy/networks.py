"""The networks of the toy world, ordinary diffusers and transformers classes, and their training."""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from t2ialign.toy.fit import fit, rows, share
from t2ialign.toy.tokenizer import POSITIONS

TEXT_WIDTH = 96
LATENT_CHANNELS = 4
CAPTION_DROP = 0.10  # share of training rows without a caption, for classifier-free guidance
WRONG_CAPTION = 0.15  # share of training rows with somebody else's caption, as web-scale data has
MAX_SNR = 5.0  # the gamma of min-SNR weighting
WORD_STD = 0.5  # of the token embeddings at the start of training


def new_vae() -> AutoencoderKL:
    """32 x 32 pixels -> 4 x 8 x 8 latents."""
    return AutoencoderKL(
        block_out_channels=(32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=16,
        sample_size=32,
    )


def new_clip(tokenizer: CLIPTokenizer, *, text_layers: int, vision_layers: int) -> CLIPModel:
    """A CLIP of two small towers; explicit token ids keep transformers off its legacy pooling path."""
    tower = {"hidden_size": TEXT_WIDTH, "intermediate_size": 4 * TEXT_WIDTH, "num_attention_heads": 4}
    text = {
        **tower,
        "num_hidden_layers": text_layers,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": POSITIONS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "projection_dim": 64,
    }
    vision = {
        **tower,
        "num_hidden_layers": vision_layers,
        "image_size": 32,
        "patch_size": 4,
        "projection_dim": 64,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))
    # CLIP's own start, 0.02, leaves words that the contrastive loss is slow to tell apart (circle, square)
    # all but equal in the text states, and a denoiser cannot draw a difference that it is not shown.
    torch.nn.init.normal_(model.text_model.embeddings.token_embedding.weight, std=WORD_STD)
    return model


def new_denoiser() -> UNet2DConditionModel:
    """The denoiser of the toy Stable Diffusion."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # the number of heads, as in SD1.5's own config
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's own noise schedule and grid."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def train_vae(images: Tensor, folder: Path, *, steps: int, seed: int, batch: int = 64) -> AutoencoderKL:
    """images (N, 3, 32, 32) uint8 -> a VAE trained on L1 + 2 L2 + 1e-5 KL, scaling factor 1 / std."""
    torch.manual_seed(seed)
    vae = new_vae()

    def loss(step: int) -> Tensor:
        index, generator = rows(seed, step, batch, len(images))
        x = images[index].float() / 127.5 - 1
        posterior = vae.encode(x).latent_dist
        z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        error = vae.decode(z).sample - x
        return error.abs().mean() + 2 * error.square().mean() + 1e-5 * posterior.kl().mean()

    fit(vae, loss, folder, steps=steps, lr=2e-3)
    with torch.no_grad():
        latents = vae.encode(images[:1024].float() / 127.5 - 1).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return vae


def train_clip(
    model: CLIPModel,
    images: Tensor,
    tokens: Tensor,
    colour: Tensor,
    folder: Path,
    *,
    steps: int,
    seed: int,
    batch: int = 160,
) -> CLIPModel:
    """Contrastive training on image-caption pairs; rows of equal captions share the target.

    Every second batch holds captions of one first colour only, `colour` (N,): else colour alone tells nearly
    all rows of a batch apart, and the text tower hardly learns its other words.
    """
    members = [torch.nonzero(colour == name).flatten() for name in colour.unique()]

    def loss(step: int) -> Tensor:
        index, _ = rows(seed, step, batch, len(images))
        if step % 2:
            group = members[step // 2 % len(members)]
            index = group[index % len(group)]
        ids = tokens[index]
        out = model(input_ids=ids, pixel_values=images[index].float() / 127.5 - 1)
        same = (ids[:, None] == ids[None]).all(-1).float()
        target = same / same.sum(1, keepdim=True)
        image, text = out.logits_per_image, out.logits_per_text
        return (F.cross_entropy(image, target) + F.cross_entropy(text, target)) / 2

    fit(model, loss, folder, steps=steps, lr=1e-3, weight_decay=0.02)
    return model


def train_denoiser(
    latents: tuple[Tensor, Tensor],
    states: Tensor,
    caption: Tensor,
    folder: Path,
    *,
    steps: int,
    seed: int,
    batch: int = 64,
) -> UNet2DConditionModel:
    """Noise prediction on cached latents: (mean, std) each (N, 4, 8, 8), states (M, 32, 96) of every caption.

    `caption` (N,) is each image's row of `states`; row 0 is the empty prompt. Timesteps are weighted by
    min(SNR, 5) / SNR (Hang et al. 2023, min-SNR), which spends the steps where the layout is decided.
    """
    torch.manual_seed(seed)
    denoiser, (mean, std) = new_denoiser(), latents
    alphas, part = new_scheduler().alphas_cumprod, share(batch)

    def loss(step: int) -> Tensor:
        index, generator = rows(seed, step, batch, len(mean))
        shape = (batch, *mean.shape[1:])
        x_0 = mean[index] + std[index] * torch.randn(shape, generator=generator)
        eps, t = torch.randn(shape, generator=generator), torch.randint(1000, (batch,), generator=generator)
        alpha_bar = alphas[t].view(-1, 1, 1, 1)
        x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps
        text, fate = caption[index], torch.rand(batch, generator=generator)
        stranger = caption[torch.randint(len(mean), (batch,), generator=generator)]
        text = torch.where(fate < WRONG_CAPTION, stranger, text)
        text = torch.where(fate > 1 - CAPTION_DROP, torch.zeros_like(text), text)
        snr = alphas[t] / (1 - alphas[t])
        weight = snr.clamp(max=MAX_SNR) / snr
        out = denoiser(x_t[part], t[part], states[text[part]]).sample
        return ((out - eps[part]).square().mean((1, 2, 3)) * weight[part]).mean()

    fit(denoiser, loss, folder, steps=steps, lr=1e-3, ema=0.999)
    return denoiser
