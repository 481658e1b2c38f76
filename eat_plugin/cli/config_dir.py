r"""Print the folder of the packaged configurations.

example: fairseq-hydra-train --config-dir $(eat config-dir) --config-name pretrain \
  common.user_dir=$(eat user-dir) task.data=/my/data
"""

from __future__ import annotations

import argparse

from eat_plugin.choices import CONFIG_DIR
from eat_plugin.cli import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    say(str(CONFIG_DIR))
    return 0
