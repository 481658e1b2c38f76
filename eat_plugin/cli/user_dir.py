r"""Print the folder of the plugin, for common.user_dir and --user-dir.

example: fairseq-hydra-train --config-dir $(eat config-dir) --config-name pretrain \
  common.user_dir=$(eat user-dir) task.data=/my/data
"""

from __future__ import annotations

import argparse

from eat_plugin.choices import USER_DIR
from eat_plugin.cli import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    say(str(USER_DIR))
    return 0
