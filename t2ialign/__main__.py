"""python -m t2ialign"""

import sys

from t2ialign.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
