"""Train the toy rewriter on CPU and write assets/toy-rewriter: `python scripts/build_rewriter.py`.

The rows, sizes and settings are those of `t2ialign prove rewrite --claim 1`, the seed is another one: a small
Llama from scratch, SFT on the rows of a teacher with bad habits, GRPO with the oracle. A killed run goes on.
"""

import argparse
import json
from pathlib import Path

from t2ialign.io.paths import path

ROOT = Path(__file__).resolve().parents[1]
SEED = 100
README = """# toy-rewriter

The toy world's rewriter: it turns what users say ("a pair of crimson balls") into the captions that
the toy generator understands ("two red circles"), after a thought. A Llama of {parameters:,}
weights, trained from scratch by `python scripts/build_rewriter.py`: SFT on {rows} rows of a teacher with
bad habits, then GRPO on images that the toy oracle judged. On {heldout} prompts with words that
training never showed in their turn of phrase it writes the very caption that is meant in {same:.1%};
`t2ialign prove rewrite` measures it in images.

`t2ialign rewrite "a pair of crimson balls" --rewriter toy`
"""


def main() -> None:
    """Train what is missing, then write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work",
        type=path,
        default=ROOT / "runs" / "build-rewriter",
        help="The folder for intermediate files.",
    )
    parser.add_argument(
        "--output",
        type=path,
        default=ROOT / "assets" / "toy-rewriter",
        help="The folder to write the finished rewriter to.",
    )
    args = parser.parse_args()
    from scripts.experiments import rewriter_runs as runs

    runs.make(args.work, SEED, runs.Sizes(), runs.SFT_SETTINGS, runs.GRPO_SETTINGS, plain=False)
    pack(args.work / runs.GRPO, args.output)


def pack(rewriter: Path, output: Path, *, heldout: int = 600) -> None:
    """The rewriter with its weights in half precision, and a README with what it gets right."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rewards.tensor_files import save_pretrained
    from scripts.experiments import rewriter_runs as runs
    from t2ialign.rewriting.parse import parse
    from t2ialign.toy.phrasings import draw_phrasings

    model = AutoModelForCausalLM.from_pretrained(rewriter, dtype=torch.float16, trust_remote_code=False)
    save_pretrained(model, output)
    config = output / "config.json"  # it computes in fp32, as the other toy networks do
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    save_pretrained(AutoTokenizer.from_pretrained(rewriter, trust_remote_code=False), output)
    asked = draw_phrasings(heldout, 3000 + SEED, held_out=True)
    outputs = runs.written(output, [phrasing.prompt for phrasing in asked])
    right = [parse(text, p.prompt).answer == p.caption for text, p in zip(outputs, asked, strict=True)]
    facts = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "rows": runs.Sizes().rows,
        "heldout": heldout,
        "same": sum(right) / len(right),
    }
    (output / "README.md").write_text(README.format(**facts))
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
