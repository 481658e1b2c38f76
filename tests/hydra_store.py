"""Makes hydra compose in half of the time.

For each composition hydra copies its store with the options of all of fairseq, although it copies
what it takes from the store again.
"""

from hydra.core.config_store import ConfigStore

ConfigStore.__deepcopy__ = lambda self, _: self
