"""Asks a model hub once whether a repository exists, before a library tries for half a minute."""

from __future__ import annotations

from pathlib import Path


def check_repository(name: str, file: str, revision: str | None = None) -> None:
    """Raises OSError or ValueError at once if neither the Hub nor the cache has the repository `name`.

    A folder of that name is as good. file: the one that is fetched to find out, which loading needs anyway.
    huggingface_hub asks six times for each file of a repository that is not in its cache, with pauses in
    between: 23 s a file, 47 s for a tokenizer. Listing a repository is asked once.
    """
    from huggingface_hub import snapshot_download

    if Path(name).is_dir():
        return
    snapshot_download(name, revision=revision, allow_patterns=[file], tqdm_class=_silent())


def _silent() -> type:
    """A progress bar of one small file that shows nothing."""
    from huggingface_hub.utils import tqdm

    class Silent(tqdm):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

    return Silent
