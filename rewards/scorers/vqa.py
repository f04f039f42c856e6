"""VQAScore: how sure a vision-language model is that the image shows the prompt.

P(yes) / (P(yes) + P(no)) over the token variants of both words, on any image-text-to-text model of
transformers or an endpoint that returns log-probabilities. Lin et al., "Evaluating Text-to-Visual Generation
with Image-to-Text Generation", ECCV 2024, score exp(-mean cross-entropy) of the answer "Yes", which for their
FlanT5 is close to sqrt(P(yes)): the order is that of P(yes), thresholds are not.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from rewards.base import Reward
from rewards.vlm.base import Judge, log_odds
from rewards.vlm.choose import judge

NAMES: dict[str, dict[str, str]] = {
    "vqascore": {},
    "vqascore-logit": {"form": "logit"},
    "vqascore-grad": {"form": "logit", "pixels": "float"},
}
TABLE = {
    "vqascore, vqascore-logit": (
        "any VLM; Qwen/Qwen2.5-VL-7B-Instruct | the VLM's own | in a question | "
        "P(yes) / (P(yes) + P(no)), or its log-odds | no | the VLM's"
    ),
    "vqascore-grad": "a local model | likewise, by tensors | likewise | log-odds | yes | the VLM's",
}

TEMPLATE = 'Does this figure show "{prompt}"? Please answer yes or no.'
"""The question of the paper."""


class VQAScore(Reward):
    """P(yes) / (P(yes) + P(no)) in [0, 1], or its log-odds (form="logit", unbounded, units of Bradley-Terry).

    Not differentiable: the processor gets images of 8 bits, as it would from files.
    """

    differentiable = False

    def __init__(
        self,
        judge: Judge,
        *,
        template: str = TEMPLATE,
        form: Literal["probability", "logit"] = "probability",
    ) -> None:
        super().__init__()
        if form not in ("probability", "logit"):
            raise ValueError(f"got form={form!r}; expected 'probability' or 'logit'; pass one of them")
        self.judge, self.template, self.form = judge, _checked(template), form

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B,). Raises ValueError as `Judge.answer` does."""
        return self._formed(self.judge.answer(images, [ask(self.template, prompt) for prompt in prompts]))

    def score_table(self, images: Tensor, candidates: list[list[str]]) -> Tensor:
        """images (B, 3, H, W), B lists of n_i prompts -> (sum n_i,); all questions go to the judge at once"""
        rows = [row for row, prompts in enumerate(candidates) for _ in prompts]
        questions = [ask(self.template, prompt) for prompts in candidates for prompt in prompts]
        return self._formed(self.judge.answer(images, questions, rows))

    def _formed(self, answers: Tensor) -> Tensor:
        odds = log_odds(answers)
        return odds.sigmoid() if self.form == "probability" else odds


class VQAGradient(VQAScore):
    """VQAScore whose gradient reaches the images, over a local judge with pixels="float"."""

    differentiable = True


def ask(template: str, prompt: str) -> str:
    """The question about a prompt; braces in the prompt stay what they are."""
    return template.replace("{prompt}", prompt)


def _checked(template: str) -> str:
    if "{prompt}" not in template:
        raise ValueError(f"got template {template!r}; expected one with {{prompt}} in it; add it")
    return template


def build(
    *,
    weights: str | None = None,
    url: str | None = None,
    form: Literal["probability", "logit"] = "probability",
    template: str = TEMPLATE,
    pixels: Literal["uint8", "float"] = "uint8",
    towers: dict[str, Any] | None = None,
    **options: Any,
) -> VQAScore:
    """VQAScore over the model in a folder or Hub id, or over the one served as `weights` at `url`.

    `options` are those of `vlm.local_judge` or `vlm_endpoint.Endpoint`. Raises ValueError as they do, and for
    gradients of an endpoint.
    """
    if url is not None and pixels == "float":
        raise ValueError("got pixels='float' with url=; expected a local model; an endpoint has no gradients")
    if url is None:
        options["pixels"] = pixels
    kind = VQAGradient if pixels == "float" else VQAScore
    return kind(judge(weights, url, towers, **options), template=template, form=form)
