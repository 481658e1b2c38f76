"""The networks of ``models`` as fairseq's models, by name, and their architectures."""

import fairseq  # noqa: F401, first: it registers all names, see eat_plugin/__init__.py

from . import architectures, models  # noqa: F401, registers them
