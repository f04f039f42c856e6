"""A model of another family, or a cache of another text encoder: one line before any weights are read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from t2ialign.cli.main import main
from t2ialign.config import read_yaml
from t2ialign.data.cache.stored import cached_widths
from t2ialign.methods.dpo import trainer as dpo
from t2ialign.models.ahead import look_ahead
from t2ialign.models.load import load_policy, policy_of
from t2ialign.models.options import AS_IT_IS
from t2ialign.models.sources import locate
from t2ialign.tasks import recipe_files
from t2ialign.tasks.recipe_files import COMMAND
from tests.models.flows.tiny_flows import FLOWS
from tests.models.flows.tiny_flux import tiny_flux_pipeline
from tests.models.flows.tiny_sd3 import tiny_sd3_pipeline
from tests.models.released import pipeline, released, write

FAMILIES = {"tiny_sd": "sd1", "tiny_sdxl": "sdxl", **{name: name for name in FLOWS}}


@pytest.mark.parametrize("model", FAMILIES)
def test_the_family_is_known_ahead(model: str, folder_of: Callable[[str], str]) -> None:
    folder, family = folder_of(model), FAMILIES[model]
    assert look_ahead(locate(folder), AS_IT_IS).family == family == load_policy(folder, device="cpu").family


@pytest.mark.parametrize("version", ["sd1", "sd2", "sdxl"])
def test_the_family_of_a_single_file_is_known_ahead(version: str, tmp_path: Path) -> None:
    file = write(released(pipeline(version)), tmp_path / "model.safetensors")
    ahead, policy = look_ahead(locate(str(file)), AS_IT_IS), load_policy(str(file), device="cpu")
    assert (ahead.family, ahead.policy) == (policy.family, type(policy))
    width = policy.encode_prompts(["a cat"])["prompt_embeds"].shape[2]
    ahead.check_cache(tmp_path, width, policy.latent_channels)
    with pytest.raises(ValueError, match=f"of prompts 7 wide and latents of 4 channels; expected {width}"):
        ahead.check_cache(tmp_path, 7, 4)


def test_a_model_of_another_family_than_the_settings_are_for(tiny_sd: Path, dpo_config, unread: None) -> None:
    wrong = "of the family sd1; expected sdxl, which the settings are for"
    with pytest.raises(ValueError, match=wrong):
        dpo.Trainer(dpo_config(family="sdxl"))


def test_a_model_in_memory_of_another_family(dpo_config) -> None:
    with pytest.raises(ValueError, match="of the family sd3; expected sd1"):
        dpo.Trainer(dpo_config(family="sd1"), policy=policy_of(tiny_sd3_pipeline()))


def test_a_recipe_of_another_family_is_refused(
    tiny_sd: Path, pair_folder: Path, unread: None, capsys
) -> None:
    words = ["train", "dpo", "-c", "dpo_flux_small", f"model={tiny_sd}", "data=pairs"]
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "family sd1; expected flux, which the settings are for" in lines[0]


def test_every_recipe_of_one_family_says_which(tmp_path: Path) -> None:
    """Those of the toy are for any small model."""
    for file in recipe_files.files():
        method = next(iter(COMMAND.findall(file.read_text(encoding="utf-8"))))
        if method in ("dpo", "lpo", "dense", "backprop"):
            known = "family" in read_yaml(file)
            assert known != file.stem.endswith(("_toy", "_small_model")), file.stem


def test_a_cache_of_another_text_encoder(
    tiny_sd: Path, tiny_sdxl: Path, dpo_config, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """SD1.5's prompts are 32 wide here, SDXL's 56."""
    cfg = {"resolution": 32, "batch_size": 2, "limit": 6, "cache": tmp_path / "cache"}
    dpo.Trainer(dpo_config(model=str(tiny_sd), **cfg))
    assert cached_widths(tmp_path / "cache", "pairs") == (32, 4)
    request.getfixturevalue("unread")
    wrong = r"cache .*cache of prompts 32 wide and latents of 4 channels; expected 56 and 4"
    with pytest.raises(ValueError, match=wrong):
        dpo.Trainer(dpo_config(model=str(tiny_sdxl), output=tmp_path / "other", **cfg))


def test_no_cache_has_no_widths(tmp_path: Path) -> None:
    assert cached_widths(tmp_path, "pairs") is None
    (tmp_path / "texts-000000.safetensors").write_bytes(b"torn")
    assert cached_widths(tmp_path, "pairs") is None


def test_schnell_is_refused_before_it_is_read(
    tmp_path: Path, dpo_config, request: pytest.FixtureRequest
) -> None:
    tiny_flux_pipeline(schnell=True).save_pretrained(tmp_path / "schnell")
    request.getfixturevalue("unread")
    with pytest.raises(ValueError, match=r"got model .*schnell, FLUX.1 schnell, which is distilled"):
        dpo.Trainer(dpo_config(model=str(tmp_path / "schnell")))
