"""Curves, pictures and pages of runs and evaluations."""
