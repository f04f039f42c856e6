"""Models in folders, and a check that none of their weights is read."""

from collections.abc import Callable
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline

from tests.models.flows.tiny_flows import FLOWS


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading weights fails the test."""

    def read(*_: object, **__: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", read)


@pytest.fixture
def folder_of(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The folder of a tiny model, by the name of a fixture or of a flow family."""

    def folder(model: str) -> str:
        if model not in FLOWS:
            return str(request.getfixturevalue(model))
        FLOWS[model]().save_pretrained(tmp_path / model)
        return str(tmp_path / model)

    return folder
