"""accelerate launch --quiet scripts/train.py dpo -c dpo_sd15 lr=1e-5

The same as `t2ialign train`, as a file that `accelerate launch` can start on several GPUs or machines.
"""

import sys

from t2ialign.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
