"""The language model that a name of weights and a server stand for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from rewards.llm.base import Writer
from rewards.llm.chat_client import ChatClient
from rewards.llm.endpoint import EndpointWriter
from rewards.llm.local import local_writer


def writer(weights: str, url: str | None = None, **options: Any) -> Writer:
    """The model served as `weights` at `url`, else the local one in a folder or of a Hub id.

    `options` are those of `chat_client.ChatClient` or `llm_local.local_writer`. Raises ValueError for others,
    and as these do.
    """
    maker: Callable[..., Any] = local_writer if url is None else ChatClient
    given = (weights,) if url is None else (url, weights)
    try:
        inspect.signature(maker).bind(*given, **options)
    except TypeError as error:
        takes = ", ".join(inspect.signature(maker).parameters)
        raise ValueError(
            f"got options of a language model that do not fit: {error}; expected {takes}; correct them"
        ) from error
    made = maker(*given, **options)
    result: Writer = made if url is None else EndpointWriter(made)
    return result
