"""A true CLIP byte-pair tokenizer for the toy world.

Every word of the world is one token, built by a chain of merges; every byte is a token too, so an unknown
word ("crimson") is spelled out instead of becoming the end token, which would truncate the prompt.
"""

import itertools
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer, T5TokenizerFast

from rewards.tensor_files import save_pretrained
from rewards.toy.captions import COMPARISONS, NUMBERS, PLURALS, RELATIONS, SIZES
from rewards.toy.world import COLOURS, SHAPES

POSITIONS = 32
BOS, EOS, PAD = "<|startoftext|>", "<|endoftext|>", "<|pad|>"
END = "</w>"  # CLIP's mark of the end of a word


def words() -> list[str]:
    """Every word of the world's captions, each once, in a fixed order."""
    phrases = [
        *RELATIONS,
        *COMPARISONS,
        "a",
        "and",
        "no",
        *NUMBERS,
        *SIZES,
        *COLOURS,
        *SHAPES,
        *PLURALS.values(),
    ]
    return list(dict.fromkeys(word for phrase in phrases for word in phrase.split()))


def spell(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Apply byte-pair merges, lowest rank first, to one word -> its pieces."""
    pieces, rank = [*word[:-1], word[-1] + END], {pair: i for i, pair in enumerate(merges)}
    while True:
        pairs = [pair for pair in itertools.pairwise(pieces) if pair in rank]
        if not pairs:
            return pieces
        best, merged, i = min(pairs, key=rank.__getitem__), [], 0
        while i < len(pieces):
            joined = tuple(pieces[i : i + 2]) == best
            merged.append("".join(best) if joined else pieces[i])
            i += 2 if joined else 1
        pieces = merged


def build_merges() -> list[tuple[str, str]]:
    """Merges after which each word of the world is one token, the pieces of a word merged from the left."""
    merges: list[tuple[str, str]] = []
    for word in words():
        while len(pieces := spell(word, merges)) > 1:
            merges.append((pieces[0], pieces[1]))
    return merges


def build_tokenizer() -> CLIPTokenizer:
    """The tokenizer, with explicit begin, end and padding tokens and 32 positions."""
    letters, merges = sorted(ByteLevel.alphabet()), build_merges()
    tokens = [
        PAD,
        *letters,
        *(letter + END for letter in letters),
        *("".join(pair) for pair in merges),
        BOS,
        EOS,
    ]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(
        vocab=vocab,
        merges=merges,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=EOS,
        pad_token=PAD,
        model_max_length=POSITIONS,
    )


def save_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write the tokenizer to `folder` and return it as transformers loads it from there."""
    save_pretrained(build_tokenizer(), folder)
    return CLIPTokenizer.from_pretrained(folder)


def no_tokenizer() -> T5TokenizerFast:
    """A tokenizer of T5 that allows no token: no zeros stand in the place of a T5 that is not there."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return T5TokenizerFast(vocab=special, extra_ids=0, model_max_length=0)
