"""The toy rewriter's tokenizer round-trips any text, and its model is one of transformers' own."""

import torch

from t2ialign.rewriting.parse import parse
from t2ialign.toy.phrasings import draw_phrasings
from t2ialign.toy.rewriter import POSITIONS, build_model, build_tokenizer, output_of


def test_texts_survive_and_known_ones_are_short():
    known = draw_phrasings(400, 1, held_out=False)
    tokenizer = build_tokenizer([text for p in known for text in (p.prompt, output_of(p))])
    for text in ("a crimson ball", 'Zürich, 3 \U0001f408 & "quotes"\n'):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    marked = tokenizer("<think>red</think><answer>a red").input_ids
    assert tokenizer.decode(marked, skip_special_tokens=True) == "<think>red</think><answer>a red"
    for phrasing in known:
        talk = [
            {"role": "user", "content": phrasing.prompt},
            {"role": "assistant", "content": output_of(phrasing)},
        ]
        ids = tokenizer.apply_chat_template(talk, tokenize=True, return_dict=True)["input_ids"]
        assert len(ids) < POSITIONS and ids[-1] == tokenizer.eos_token_id
        asked = tokenizer.apply_chat_template(
            talk[:1], tokenize=True, add_generation_prompt=True, return_dict=True
        )
        assert ids[: len(asked["input_ids"])] == asked["input_ids"]


def test_what_it_should_write_is_what_the_parser_reads():
    for phrasing in draw_phrasings(30, 2, held_out=False):
        parsed = parse(output_of(phrasing), phrasing.prompt)
        assert (parsed.thought, parsed.answer, parsed.fallback) == (phrasing.thought, phrasing.caption, None)
        assert parse(output_of(phrasing, thought=False), phrasing.prompt).answer == phrasing.caption


def test_weights_are_a_function_of_the_seed_and_save_and_load(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = build_tokenizer(["a red circle"])
    first, again, other = (build_model(tokenizer, seed) for seed in (0, 0, 1))
    same, different = (
        [torch.equal(a, b) for a, b in zip(first.parameters(), model.parameters(), strict=True)]
        for model in (again, other)
    )
    assert all(same) and not all(different)
    first.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, words = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    ids = words("a red circle", return_tensors="pt").input_ids
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), loaded.parameters(), strict=True))
    torch.testing.assert_close(loaded(ids).logits, first(ids).logits, rtol=1e-5, atol=1e-5)
    assert words.chat_template == tokenizer.chat_template
