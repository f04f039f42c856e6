"""Many questions about one image: what their prompts have in common, the image above all, is read once.

Exact for models whose tokens see only what is before them. A checklist of 30 questions then costs a long
prompt and 30 short ones, in place of 30 long ones.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor


def shared_logits(
    model: Any, first: Any, texts: Sequence[list[int]], *, batch: int, pad: int, lean: dict[str, Any]
) -> Tensor:
    """Processed inputs of the first prompt, token ids of all, images not filled in -> last logits (Q, V).

    Raises ValueError where the prompts have no common beginning with the image in it.
    """
    first_ids: list[int] = first["input_ids"][0].tolist()
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False))
    common = min(len(list(alike)), min(map(len, texts)) - 1)  # each keeps a token to be read on its own
    tail = texts[0][common:]
    length = len(first_ids) - len(tail)
    if common < 1 or length < 1 or first_ids[length:] != tail:
        raise ValueError(
            "got prompts that have no image in common before the question; expected a chat template with the "
            "image first; read them whole"
        )
    whole = (1, len(first_ids))
    prefix = {
        name: value[:, :length] if tuple(value.shape) == whole else value for name, value in first.items()
    }
    read = model(**prefix, use_cache=True, **lean).past_key_values
    results = []
    for start in range(0, len(texts), batch):
        rests = [ids[common:] for ids in texts[start : start + batch]]
        cache = copy.deepcopy(read)
        cache.batch_repeat_interleave(len(rests))
        # Padding comes last, where no token of a question sees it: neither mask nor positions are needed.
        longest = max(map(len, rests))
        ids = torch.tensor([rest + [pad] * (longest - len(rest)) for rest in rests], device=model.device)
        logits = model(input_ids=ids, past_key_values=cache, use_cache=True).logits
        last = torch.tensor([len(rest) - 1 for rest in rests], device=logits.device)
        results.append(logits[torch.arange(len(rests), device=logits.device), last])
    return torch.cat(results)
