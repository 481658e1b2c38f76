"""Checks before a run, for `eat doctor`: software, machine, configuration, data."""
