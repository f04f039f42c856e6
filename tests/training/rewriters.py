"""Small things that the tests of a rewriter's training share."""

import json
from pathlib import Path

from rewards.keypoints.oracle import toy_points
from rewards.keypoints.taxonomy import to_json
from t2ialign.toy.phrasings import Phrasing, draw_phrasings
from t2ialign.toy.rewriter import build_model, build_tokenizer, output_of

PHRASINGS = draw_phrasings(60, 3, held_out=False)


def new_rewriter(folder: Path) -> Path:
    """An untrained toy rewriter, saved as users have one."""
    tokenizer = build_tokenizer([text for p in PHRASINGS for text in (p.prompt, output_of(p))])
    build_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(file: Path, phrasings: list[Phrasing]) -> Path:
    """Phrasings as the rows that both trainers read."""
    rows = [
        {"prompt": p.prompt, "thought": p.thought, "rewrite": p.caption}
        | {"points": to_json(toy_points(p.caption))}
        for p in phrasings
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
