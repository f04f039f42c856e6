"""The tokenizer built from open_clip's merges is the one that Stable Diffusion was trained with."""

import csv
import gzip
import json
import os
from pathlib import Path

import pytest
from open_clip.tokenizer import SimpleTokenizer, basic_clean
from transformers import CLIPTokenizer

from rewards.towers.clip_tokenizer import POSITIONS, SIZE, clip_tokenizer

DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))
PROMPTS = DATA / "partiprompts" / "PartiPrompts.tsv"
MERGES = DATA / "weights" / "clip-bpe" / "clip" / "bpe_simple_vocab_16e6.txt.gz"


@pytest.fixture(scope="module")
def first():
    return clip_tokenizer()


@pytest.fixture(scope="module")
def second():
    return clip_tokenizer(open_clip=True)


def test_ids_known_from_publications(first):
    """49406 and 49407 mark begin and end; "a photo of a cat" is in CLIP's own notebook."""
    assert len(first) == SIZE == 49_408
    assert first("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert first("A  Photo\tof a CAT").input_ids == first("a photo of a cat").input_ids
    assert first.decode(first("a cat").input_ids, skip_special_tokens=True) == "a cat"


def test_padding_differs_by_encoder(first, second):
    """OpenAI's encoder was fine-tuned with end marks after the end, open_clip's with zeros."""
    for tokenizer, pad in ((first, 49407), (second, 0)):
        ids = tokenizer("a", padding="max_length", truncation=True).input_ids
        assert ids == [49406, 320, 49407] + [pad] * (POSITIONS - 3)
        assert len(tokenizer("a " * 100, truncation=True).input_ids) == POSITIONS


def test_the_padding_token_within_a_prompt(first, second):
    """As in the published tokenizers of Stable Diffusion 2 and SDXL, "!" is then the padding token."""
    assert first("a!").input_ids == [49406, 320, 256, 49407]
    assert second("a!").input_ids == [49406, 320, 0, 49407]


@pytest.fixture(scope="module")
def prompts():
    if not PROMPTS.is_file():
        pytest.skip(f"no {PROMPTS}; set T2IALIGN_DATA")
    with PROMPTS.open(encoding="utf-8", newline="") as file:
        rows = [row["Prompt"] for row in csv.DictReader(file, delimiter="\t")]
    return [text for text in rows if basic_clean(text) == text.strip()][:1000]


def test_a_thousand_prompts_have_open_clip_s_ids(first, second, prompts):
    """Prompts that open_clip's cleaning leaves alone: it repairs Unicode (ftfy) and turns &amp; into &."""
    theirs = SimpleTokenizer()
    assert len(prompts) == 1000
    expected = [[theirs.sot_token_id, *theirs.encode(text), theirs.eot_token_id] for text in prompts]
    assert first(prompts).input_ids == expected
    plain = [index for index, text in enumerate(prompts) if "!" not in text]
    assert len(plain) > 900
    assert [second(prompts[index]).input_ids for index in plain] == [expected[index] for index in plain]


def test_a_thousand_prompts_have_the_ids_of_a_published_vocabulary(first, prompts, tmp_path):
    """vocab.json and merges.txt, written by OpenAI's rule from OpenAI's own file, opened by transformers."""
    if not MERGES.is_file():
        pytest.skip(f"no {MERGES}; set T2IALIGN_DATA")
    merges = gzip.decompress(MERGES.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = [chr(i) for i in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    letters += [chr(256 + i) for i in range(256 - len(letters))]
    tokens = letters + [x + "</w>" for x in letters] + [m.replace(" ", "") for m in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    assert first(prompts).input_ids == CLIPTokenizer.from_pretrained(tmp_path)(prompts).input_ids


def test_where_cleaning_differs(first):
    """Published pipelines of diffusers do not repair text either, so neither do we."""
    theirs = SimpleTokenizer()
    assert theirs.encode("salt &amp; pepper") == theirs.encode("salt & pepper")
    assert first("salt &amp; pepper").input_ids != first("salt & pepper").input_ids
