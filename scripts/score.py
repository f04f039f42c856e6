"""accelerate launch --quiet scripts/score.py images/ --prompts table.jsonl --rewards pickscore -o out.parquet

The same as `t2ialign score`, as a file that `accelerate launch` can start on several GPUs or machines: each
process scores its share and writes out.rank0-of-4.parquet, ...; `t2ialign score --merge` joins them.
"""

import sys

from t2ialign.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["score", *sys.argv[1:]]))
