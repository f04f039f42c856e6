"""The judge that a name of weights and a server stand for."""

from __future__ import annotations

import inspect
from typing import Any

from rewards.vlm.base import DEFAULT, Judge
from rewards.vlm.endpoint import Endpoint
from rewards.vlm.local import LocalJudge, local_judge


def judge(
    weights: str | None, url: str | None, towers: dict[str, Any] | None = None, **options: Any
) -> Judge:
    """The judge served as `weights` at `url`, else the local one; equal ones are shared in `towers`.

    Raises ValueError for options that it does not take, and as `local_judge` and `vlm_endpoint.Endpoint` do.
    """
    towers = {} if towers is None else towers
    makers: list[Any] = [local_judge, LocalJudge] if url is None else [Endpoint]
    known = {name for maker in makers for name in inspect.signature(maker).parameters}
    if stray := sorted(set(options) - known):
        given = known - {"model", "processor", "weights", "url", "options"}
        kind = "a local judge" if url is None else "a judge at url="
        raise ValueError(
            f"got options {', '.join(stray)} of {kind}; expected some of {', '.join(sorted(given))}; correct "
            "them"
        )
    key = f"vlm:{url}:{weights}:{sorted(options.items())}"
    if key not in towers:
        towers[key] = (
            local_judge(weights, **options) if url is None else Endpoint(url, weights or DEFAULT, **options)
        )
    result: Judge = towers[key]
    return result
