"""`python -m benchmarks` is `eat bench` of this checkout."""

import sys

from eat_plugin.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
