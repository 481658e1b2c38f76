"""Training by the command `eat`: the configuration, the machine, and the run with its progress."""
