"""Preparation of data, done once before training: finding, listing, measuring, caching.

An invalid option or input raises ValueError (TableError for a row, ClipError for a clip); a file
that cannot be read or written, or a worker process that dies, raises OSError.
"""
