"""A true CLIP tokenizer: known words are one token, unknown ones are spelled out, nothing is cut early."""

from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from t2ialign.toy.captions import draw_captions
from t2ialign.toy.tokenizer import POSITIONS, build_merges, save_tokenizer, spell, words


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_every_word_of_the_world_is_one_token(tokenizer: CLIPTokenizer) -> None:
    for word in words():
        assert len(tokenizer(word).input_ids) == 3, word  # begin, the word, end


def test_words_are_all_that_captions_use() -> None:
    used = {
        word
        for held_out in (True, False)
        for text in draw_captions(3000, 0, held_out=held_out)
        for word in text.split()
    }
    assert used == set(words())


def test_unknown_words_are_spelled_out_and_the_end_comes_last(tokenizer: CLIPTokenizer) -> None:
    for text in ("a crimson circle", "Übergrün 日本 \u2603", "a red, circle!"):
        ids = tokenizer(text, padding="max_length", max_length=POSITIONS, truncation=True).input_ids
        end = ids.index(tokenizer.eos_token_id)
        assert ids[0] == tokenizer.bos_token_id and set(ids[end + 1 :]) <= {tokenizer.pad_token_id}
        assert ids.count(tokenizer.eos_token_id) == 1  # an unknown word is not the end token
    spelled = tokenizer("a crimson circle", add_special_tokens=False).input_ids
    assert tokenizer.decode(spelled) == "a crimson circle"


def test_special_tokens_are_explicit_and_off_the_legacy_path(tokenizer: CLIPTokenizer) -> None:
    ids = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert len(ids) == 3 and tokenizer.eos_token_id != 2  # 2 makes transformers pool at the largest id
    assert tokenizer.model_max_length == POSITIONS == 32


def test_saved_and_loaded_is_the_same(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    texts = draw_captions(60, 0, held_out=False)
    assert again(texts).input_ids == tokenizer(texts).input_ids


def test_agrees_with_byte_pair_merging_by_hand(tokenizer: CLIPTokenizer) -> None:
    merges = build_merges()
    for word in ("circles", "crimson", "squared", "recross"):
        assert tokenizer.tokenize(word) == spell(word, merges)
