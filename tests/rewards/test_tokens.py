"""Token ids: those of OpenAI's, open_clip's and transformers' tokenizers."""

import logging

import open_clip
import pytest
import torch

from rewards.towers.tokens import Tokens, clip_tokens

PLAIN = ["a photo of a cat", "two dogs, 3 birds & a 1950s car!", "it's ours", "", "Zwei Kühe über einem Ü"]


def padded(ids: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(ids, (0, 77 - ids.shape[1]))


def test_openai_style_is_open_clips_own():
    odd = [*PLAIN, "a &amp; b", "mojibake Ã¼ber", "<b>bold</b>", "tab\tand\n\nline", "猫の写真 😀"]
    theirs = open_clip.tokenize(odd)
    assert torch.equal(padded(clip_tokens()(odd)), theirs)


def test_both_styles_agree_on_plain_prompts_and_differ_on_html_and_mojibake():
    ours, theirs = clip_tokens("openai"), clip_tokens("transformers")
    assert torch.equal(ours(PLAIN), theirs(PLAIN))
    for prompt in ("a &amp; b", "mojibake Ã¼ber"):
        assert ours([prompt]).tolist() != theirs([prompt]).tolist()


def test_no_row_is_longer_than_the_longest_prompt():
    ids = clip_tokens()(["a cat", "a cat on a mat"])
    assert ids.shape == (2, 7)
    assert ids[0].tolist() == [49406, 320, 2368, 49407, 0, 0, 0]


@pytest.mark.parametrize("style", ["openai", "transformers"])
def test_a_long_prompt_is_cut_before_its_end_token_with_one_warning(style, caplog):
    tokens = clip_tokens(style)
    long = "cat " * 80 + "dog"
    with caplog.at_level(logging.WARNING):
        first, second = tokens([long]), tokens(["a", long])
    assert first.shape == (1, 77)
    assert first[0, -1] == 49407
    assert torch.equal(first[0], second[1])
    assert torch.equal(first, open_clip.tokenize([long]))
    (record,) = caplog.records
    assert "has 81 tokens and the reward reads 75; cut: 'cat cat cat cat cat dog'" in record.getMessage()


def test_unknown_style_is_an_error():
    with pytest.raises(ValueError, match="got tokenizer 'bert'; expected openai or transformers"):
        clip_tokens("bert")


def test_prompts_are_read_only_when_asked():
    read = []

    def encode(prompt: str) -> list[int]:
        read.append(prompt)
        return [5] * len(prompt)

    tokens = Tokens(encode, str, start=1, end=2)
    assert tokens(["ab", ""]).tolist() == [[1, 5, 5, 2], [1, 2, 0, 0]]
    assert read == ["ab", ""]
