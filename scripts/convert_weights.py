"""python scripts/convert_weights.py MPS_overall_checkpoint.pth MPS_overall_checkpoint.safetensors

Takes the tensors out of a whole pickled model, running nothing of it (see rewards/towers/whole_model.py), or
out of a state dict in .pt, .pth or .bin, and writes them as safetensors. A file that names code outside of
--known is refused.
"""

import argparse
import sys
from pathlib import Path

from rewards.towers.whole_model import KNOWN, read_module
from t2ialign.io.paths import path


def convert(source: Path, target: Path, known: list[str]) -> int:
    """Writes `target` and returns how many tensors it has. Raises ValueError for a file that is refused."""
    from rewards import tensor_files
    from rewards.weights import load_state

    try:
        state = load_state(source)
    except ValueError:  # it is more than tensors
        state = read_module(source, known)
    tensor_files.write({key: value.clone() for key, value in state.items()}, target)
    return len(state)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=path)
    parser.add_argument("target", type=path)
    parser.add_argument(
        "--known", nargs="+", default=list(KNOWN), help="The packages that the file may name."
    )
    args = parser.parse_args(argv)
    try:
        count = convert(args.source, args.target, args.known)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.target}: {count} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
