"""Benchmarks: `python -m benchmarks` in a checkout. They are no part of the installed package."""
