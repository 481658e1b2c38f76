"""Strong labels: the table of events, and labels of frames that move with the sound."""

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.data.events import (
    Event,
    EventReader,
    label_frames,
    read_event_labels,
    read_events,
)
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.label_set import LabelSet
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.tables import TableError

HEADER = "filename\tonset\toffset\tevent_label\n"
RATE = 16_000
LABELS = LabelSet(("cat", "dog"))


@pytest.fixture
def write(tmp_path):
    def write(rows, names=("a/x.wav", "b/y.wav")):
        (tmp_path / "train.tsv").write_text(
            f"{tmp_path}\n" + "".join(f"{n}\t16000\n" for n in names)
        )
        path = tmp_path / "train.events"
        path.write_text(rows)
        return path, read_manifest(tmp_path / "train.tsv")

    return write


def test_events__are_matched_by_path_file_or_name_without_ending(write):
    rows = "a/x.wav\t0\t1.5\tdog\ny.wav\t0.25\t1\tcat\ny\t2\t3\tdog\nx.wav\t\t\t\n"
    path, manifest = write(HEADER + rows)
    assert read_events(path, manifest, LABELS) == [
        [Event(0.0, 1.5, 1)],
        [Event(0.25, 1.0, 0), Event(2.0, 3.0, 1)],
    ]
    assert read_event_labels(path).ids == ("cat", "dog")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("x.wav\t0\t1\tdog\n", "train.events:1: expected the columns filename, onset, offset"),
        (HEADER + "x.wav\t0\t1\n", "train.events:2: expected a file name, two times in seconds"),
        (HEADER + "x.wav\tnow\t1\tdog\n", "train.events:2: expected a file name, two times"),
        (HEADER + "x.wav\t1\t1\tdog\n", "train.events:2: the event lasts from 1.0 to 1.0 s"),
        (HEADER + "x.wav\t-1\t1\tdog\n", "train.events:2: the event lasts from -1.0 to 1.0 s"),
        (HEADER + "x.wav\t0\tinf\tdog\n", "train.events:2: the event lasts from 0.0 to inf s"),
        (HEADER + "x.wav\t0\tnan\tdog\n", "train.events:2: the event lasts from 0.0 to nan s"),
        (HEADER + "x\t500\t1500\tdog\n", "train.events:2: .* after 500.0 s, but 'x' has 16000 s"),
        (HEADER + "z.wav\t0\t1\tdog\n", "train.events:2: no clip has the name 'z.wav' in .*tsv"),
        (HEADER + "x.wav\t0\t1\tdogs\n", "train.events:2: unknown label 'dogs'.*mean 'dog'"),
    ],
)
def test_events__that_are_invalid_are_named(write, rows, message):
    with pytest.raises(TableError, match=message):
        read_events(*write(rows), LABELS)


def test_events__of_an_ambiguous_name_are_refused(write):
    path, manifest = write(HEADER + "x.wav\t0\t1\tdog\n", ("a/x.wav", "b/x.wav"))
    with pytest.raises(TableError, match=r"train.events:2: several clips have the name 'x.wav'"):
        read_events(path, manifest, LABELS)


def test_event_labels__need_an_event(write):
    with pytest.raises(TableError, match="there is no event"):
        read_event_labels(write(HEADER)[0])


def test_label_frames__of_a_window():
    events = [Event(0.0, 1.0, 0), Event(1.52, 1.55, 1), Event(9.0, 10.0, 1)]
    labels = label_frames(events, 2, 0.5, 110)
    assert labels.dtype == torch.int8
    assert labels[:, 0].nonzero().flatten().tolist() == list(range(50))
    assert labels[:, 1].nonzero().flatten().tolist() == [102, 103, 104]


@pytest.fixture
def make_reader(tmp_path):
    """Noise with a loud tone from 1.0 to 1.5 s in a clip of 3 s."""

    def make(frames, seconds=3.0, rate=RATE, **options):
        times = np.arange(int(seconds * rate)) / rate
        on = (times >= 1.0) & (times < 1.5)
        samples = np.random.default_rng(0).normal(0, 0.001, len(times)) + on * 0.4 * np.sin(
            2 * np.pi * 1000 * times
        )
        soundfile.write(tmp_path / "tone.wav", samples, rate)
        (tmp_path / "train.tsv").write_text(f"{tmp_path}\ntone.wav\t{len(samples)}\n")
        manifest = read_manifest(tmp_path / "train.tsv")
        return EventReader(
            manifest, FrontEnd(frames, -5.0, 4.0), [[Event(1.0, 1.5, 1)]], 2, **options
        )

    return make


def loud_frames(source):
    """The frames of a spectrogram whose middle lies in the tone."""
    level = source[0].max(dim=1).values
    return set((level > level.median() + 0.5).nonzero().flatten().tolist())


@pytest.mark.parametrize("rate", [RATE, 44_100])
@pytest.mark.parametrize(
    "options", [{}, {"crop": "random"}, {"roll_gain": True}, {"crop": "random", "roll_gain": True}]
)
def test_reader__moves_labels_as_the_sound(make_reader, options, rate):
    reader = make_reader(240, rate=rate, **options)
    starts = set()
    for seed in range(6):
        source, label = reader.read(0, torch.Generator().manual_seed(seed))
        assert label.shape == (240, 2)
        labelled = set((label[:, 1] == 1).nonzero().flatten().tolist())
        starts.add(min(labelled))
        assert not label[:, 0].any()
        # A frame lasts 25 ms; its label is that of its first 10 ms.
        assert len(loud_frames(source) ^ labelled) <= 8
    assert (len(starts) > 1) == bool(options)


def test_reader__marks_padding(make_reader):
    source, label = make_reader(400, roll_gain=True).read(0, torch.Generator().manual_seed(0))
    assert source.shape[1] == len(label) == 400
    assert (label[:300] >= 0).all()
    assert (label[300:] == -1).all()
    assert len(loud_frames(source[:, :298]) ^ set(label[:, 1].eq(1).nonzero()[:, 0].tolist())) <= 8


def test_reader__joins_clips(make_reader):
    reader = make_reader(240)
    clips = [reader.read(0, torch.Generator().manual_seed(seed)) for seed in range(2)]
    batch = reader.collate(clips)
    assert batch["source"].shape == (2, 1, 240, 128)
    assert batch["label"].shape == (2, 240, 2)
