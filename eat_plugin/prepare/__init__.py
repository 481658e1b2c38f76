"""Preparation of data, done once before training: finding, listing, measuring, caching."""
