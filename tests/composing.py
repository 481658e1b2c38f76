"""Configurations as fairseq-hydra-train composes them, with either generation of hydra."""

from pathlib import Path

import hydra
from fairseq.dataclass.initialize import hydra_init
from hydra.core.global_hydra import GlobalHydra

CONFIG = Path(__file__).resolve().parents[1] / "config"
if hasattr(hydra, "compose"):
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    VERSION = {"version_base": "1.1"}
else:  # before 1.1
    from hydra.experimental import compose as hydra_compose
    from hydra.experimental import initialize_config_dir

    VERSION = {}


def compose(name, overrides):
    """Compose a configuration, without the defaults that fairseq adds."""
    GlobalHydra.instance().clear()
    hydra_init(name)
    with initialize_config_dir(config_dir=str(CONFIG), **VERSION):
        return hydra_compose(name, overrides)
