"""Settings of train as options and as key=value, under our names and under those of other scripts."""

import json

import pytest

from t2ialign import peers
from t2ialign.cli import main as cli
from t2ialign.cli import recipes
from t2ialign.cli.train import plain
from t2ialign.config import Config, load, members, renamed
from t2ialign.overrides import as_overrides
from t2ialign.tasks import recipe_files
from t2ialign.training.methods import methods, settings_of
from tests.test_config import Demo


def settings(*words: str) -> list[str]:
    """What the words after a method become, with the settings of `Demo`."""
    method, *rest = as_overrides(["demo", *words], ["demo"], lambda name: Demo)
    assert method == "demo"
    return rest


def configs() -> dict[str, type[Config]]:
    return {name: settings_of(name) for name in methods()}


@pytest.mark.parametrize("method", methods())
def test_the_three_forms_are_the_same_for_every_setting_of_every_method(method):
    cls = settings_of(method)
    for key, field in cls.model_fields.items():
        kinds = members(field.annotation)
        value = "true" if bool in kinds else "-1.5" if float in kinds else "~/some where/a=b"
        dashed = key.replace("_", "-")
        for name in (key, dashed):
            for words in ([f"--{name}", value], [f"--{name}={value}"], [f"{name}={value}"]):
                assert plain([method, *words]) == [method, f"{name}={value}"]
        assert renamed(cls, dashed) == key


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--lr", "-1e-5"], ["lr=-1e-5"]),
        (["--lr", "1e-5", "beta=2"], ["lr=1e-5", "beta=2"]),
        (["--trackers", "[]"], ["trackers=[]"]),
        (["--trackers", "wandb"], ["trackers=wandb"]),
        (["--trackers", "a, b", "c: d", "lr=1"], ['trackers=["a, b", "c: d"]', "lr=1"]),
        (["--flip"], ["flip=true"]),
        (["--flip", "data=x"], ["flip=true", "data=x"]),
        (["--flip", "False"], ["flip=False"]),
        (["--flip", "--lr", "1"], ["flip=true", "lr=1"]),
        (["--optim.lr", "0.3"], ["optim.lr=0.3"]),
        (["--data", "a=b"], ["data=a=b"]),
        (["--no-such"], ["no-such="]),
        (
            ["-c", "x", "--lr=1", "--config", "y", "--config=z"],
            ["-c", "x", "lr=1", "--config", "y", "--config=z"],
        ),
    ],
)
def test_words_become_overrides(words, expected):
    assert settings(*words) == expected


@pytest.mark.parametrize(
    "words", [["--lr", "1", "dpo"], ["--flip", "dpo", "--lr", "1"], ["-c", "reward", "dpo", "--lr", "1"]]
)
def test_the_method_may_stand_anywhere(words):
    assert as_overrides(words, ["dpo", "reward"], lambda name: Demo)[0] == "dpo"


def test_a_list_of_prompts_reads_back_word_by_word():
    prompts = ["a cat, asleep", 'the words "3: pm"', "[x]", "eine Tür"]
    (word,) = settings("--trackers", *prompts)
    assert load(Demo, None, ["data=x", word]).trackers == tuple(prompts)


def test_options_win_over_the_recipe_and_the_last_one_wins(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: a\nlr: 1e-4\nbeta: 3\n")
    cfg = load(Demo, recipe, settings("--lr", "2e-4", "lr=3e-4", "--learning_rate=4e-4"))
    assert (cfg.lr, cfg.beta, cfg.data) == (4e-4, 3, "a")


def test_every_alias_means_a_setting_that_there_is_and_hides_none():
    fields = {key for cls in configs().values() for key in cls.model_fields}
    names = [*peers.ALIASES, *peers.INSTEAD, *(name for some in peers.ABSENT.values() for name in some)]
    assert set(peers.ALIASES.values()) <= fields and set(peers.VALUES) <= set(peers.ALIASES)
    assert len(names) == len(set(names)) and not fields & set(names)
    assert all(peers.advice(name) for name in names if name not in peers.ALIASES)


DIFFUSERS = """
--pretrained_model_name_or_path=m --dataset_name d --output_dir=o --train_batch_size=2
--gradient_accumulation_steps 3 --learning_rate 1e-4 --lr_scheduler constant_with_warmup --lr_warmup_steps 5
--max_train_steps=7 --checkpointing_steps=11 --checkpoints_total_limit=1 --mixed_precision no --rank=8
--seed=13 --resolution=64 --random_flip --gradient_checkpointing --report_to all --validation_prompt cat
--max_grad_norm 0.5 --variant fp16 --dataset_split_name test
"""
OURS = """
model=m data=d output=o batch_size=2 accumulate=3 lr=1e-4 lr_schedule=constant lr_warmup=5
max_steps=7 checkpoint_every=11 checkpoint_limit=1 precision=fp32 lora_rank=8 seed=13 resolution=64 flip=true
gradient_checkpointing=true trackers=[tensorboard,wandb] validation_prompts=cat max_grad_norm=0.5 variant=fp16
split=test
"""


def test_a_command_line_of_diffusers_is_one_of_ours():
    cls = settings_of("dpo")
    assert load(cls, None, plain(["dpo", *DIFFUSERS.split()])[1:]) == load(cls, None, OURS.split())


def test_kohya_s_names_and_values():
    words = (
        "--network_dim 8 --network_alpha 4 --optimizer_type AdamW8bit --log_with tensorboard --enable_bucket"
    )
    cfg = load(settings_of("dpo"), None, plain(["dpo", "data=d", *words.split()])[1:])
    assert (cfg.lora_rank, cfg.lora_alpha, cfg.optimizer, cfg.buckets) == (8, 4.0, "adamw8bit", True)


def test_other_names_in_a_recipe(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("dataset_name: d\nlearning_rate: 1e-3\nmixed_precision: no\nreport_to: all\n")
    cfg = load(settings_of("dpo"), recipe)
    assert (cfg.data, cfg.lr, cfg.precision, cfg.trackers) == ("d", 1e-3, "fp32", ("tensorboard", "wandb"))
    recipe.write_text("lr: 1e-3\nlearning_rate: 1e-4\n")
    with pytest.raises(ValueError, match=r"got lr twice in .*, once as learning_rate"):
        load(settings_of("dpo"), recipe)


def test_an_alias_that_this_method_lacks_is_unknown():
    with pytest.raises(ValueError, match="unknown key 'random_flip'"):
        load(settings_of("lpo"), None, ["prompts=x", "random_flip=true"])


def test_beta_dpo_is_refused_with_both_scales():
    with pytest.raises(ValueError, match="write beta=5000 for its 5000, and for the 2500 of diffusers"):
        load(settings_of("dpo"), None, ["data=x", "beta_dpo=2500"])


def test_a_recipe_of_another_method_is_named_as_such(tmp_path, capsys):
    for file in recipe_files.files():
        own = recipes.describe(file).method
        other = "dpo" if own != "dpo" else "backprop"
        assert cli.main(["train", other, "-c", file.stem]) == 2
        line = f"it is for train {own}; expected a recipe of train {other}; run t2ialign train {own} -c "
        assert line + file.stem in capsys.readouterr().err
    settings = tmp_path / "config.yaml"  # what a run leaves: no head, every key
    cfg = load(settings_of("lpo"), None, ["prompts=x"])
    settings.write_text(json.dumps(cfg.model_dump(mode="json")))
    assert cli.main(["train", "dense", "-c", str(settings)]) == 2
    assert f"it is for train lpo; expected a recipe of train dense; run t2ialign train lpo -c {settings}" in (
        capsys.readouterr().err
    )
