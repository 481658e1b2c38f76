"""`python -m eat_plugin` is the command `eat`."""

import sys

from eat_plugin.cli import main

if __name__ == "__main__":
    sys.exit(main())
