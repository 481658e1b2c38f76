"""Helpers of the tests of imported data sets."""

import io
import os

import numpy as np
import soundfile

from eat_plugin import cli
from eat_plugin.data.entries import find_part
from eat_plugin.data.files import open_range
from eat_plugin.data.manifest import read_manifest


def make_sound(seed, format_="WAV"):
    """The bytes of a short sound file of noise."""
    file, rng = io.BytesIO(), np.random.default_rng(seed)
    soundfile.write(file, rng.normal(0, 0.1, 4000 + seed), 16_000, format=format_)
    return file.getvalue()


def run(source, out, *options):
    arguments = ["manifest", str(source), "--out", str(out), "--workers", "1", *options]
    return cli.main(arguments)


def run_parts(source, out, *options):
    """Do the work of a run in two parts, and merge them; return the files."""
    for part in (["--part", "1/2"], ["--part", "2/2"], ["--merge", "2"]):
        assert run(source, out, *part, *options) == 0
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def read_ids(data, split="train"):
    return dict(line.split("\t") for line in (data / f"{split}.ids").read_text().splitlines())


def read_clips(data, split="train"):
    """The bytes of each clip of a manifest, by its id."""
    manifest, ids, found = read_manifest(data / f"{split}.tsv"), read_ids(data, split), {}
    assert len(ids) == len(manifest)
    for index in range(len(manifest)):
        entry = manifest.entry(index)
        part = find_part(entry.path)
        descriptor, start, end = open_range(part[0], part, entry.stored)
        found[ids[manifest.name(index)]] = os.pread(descriptor, end - start, start)
        os.close(descriptor)
    return found


def read_labels(data, split="train"):
    """The labels of each clip, as the file has them, by its id."""
    ids = read_ids(data, split)
    lines = (data / f"{split}.lbl").read_text().splitlines()
    return {ids[name]: labels for name, labels in (line.split("\t") for line in lines)}


def problem(capsys):
    return capsys.readouterr().err.splitlines()[-1]
