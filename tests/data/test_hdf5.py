"""HDF5 files: samples, errors of invalid files, use in several processes and threads."""

import multiprocessing
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat_plugin.data import hdf5
from eat_plugin.data.clip import ClipError
from eat_plugin.data.hdf5 import list_datasets
from eat_plugin.data.sources import probe_clip
from tests.reading import read_audio

h5py = pytest.importorskip("h5py")
RATE = 16_000
LENGTH = 4_000


def make_samples(channels: int = 1) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(-1, 1, (LENGTH, channels))
    return noise.astype(np.float32).squeeze()


def write(path: Path, values: object, rate: object = RATE, key: str = "a/clip") -> Path:
    with h5py.File(path, "a") as file:
        file[key] = values
        if rate is not None:
            file[key].attrs["sample_rate"] = rate
    return path / key


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8"])
@pytest.mark.parametrize("channels", [1, 3])
def test_hdf5__floats_equal_a_float_wav(tmp_path: Path, kind: str, channels: int) -> None:
    samples = make_samples(channels)
    soundfile.write(tmp_path / "clip.wav", samples, RATE, "FLOAT")
    path = write(tmp_path / "x.h5", samples.astype(kind))
    waveform, rate = read_audio(path, LENGTH)
    np.testing.assert_array_equal(waveform, read_audio(tmp_path / "clip.wav")[0])
    assert rate == RATE
    assert probe_clip(path) == (LENGTH, RATE)


@pytest.mark.parametrize("channels", [1, 2])
def test_hdf5__int16_equals_a_16_bit_wav(tmp_path: Path, channels: int) -> None:
    samples = (make_samples(channels) * 32767).astype(np.int16)
    samples[0] = -32768
    soundfile.write(tmp_path / "clip.wav", samples, RATE, "PCM_16")
    path = write(tmp_path / "x.HDF5", samples)
    np.testing.assert_array_equal(read_audio(path)[0], read_audio(tmp_path / "clip.wav")[0])
    assert read_audio(path)[0][0] == -1


@pytest.mark.parametrize(
    ("start", "number", "expected"),
    [(0, 100, slice(100)), (50, 100, slice(50, 150)), (3_950, 100, slice(3_950, None))],
)
def test_hdf5__reads_a_part(tmp_path: Path, start: int, number: int, expected: slice) -> None:
    path = write(tmp_path / "x.h5", make_samples())
    waveform, _ = read_audio(path, LENGTH, start, number)
    np.testing.assert_array_equal(waveform, make_samples()[expected])


def test_hdf5__decodes_the_part_only(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        clip = file.create_dataset("clip", data=make_samples(), chunks=(1_000,), compression="gzip")
        clip.attrs["sample_rate"] = RATE
        clip.id.write_direct_chunk((1_000,), b"not what gzip writes")
    path = tmp_path / "x.h5" / "clip"
    assert read_audio(path, num_samples=1_000)[0].shape == (1_000,)
    with pytest.raises(ClipError, match="cannot be read as HDF5: "):
        read_audio(path, num_samples=1_001)
    assert read_audio(path, start=2_000)[0].shape == (2_000,)


@pytest.mark.parametrize("name", ["sample_rate", "sampling_rate", "sr"])
@pytest.mark.parametrize("owner", ["a/clip", "/"])
def test_hdf5__rate_of_the_dataset_or_the_file(tmp_path: Path, name: str, owner: str) -> None:
    path = write(tmp_path / "x.h5", make_samples(), rate=None)
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file[owner].attrs[name] = np.array([22_050.0])
    assert probe_clip(path) == (LENGTH, 22_050)


def test_hdf5__rate_of_the_dataset_has_priority(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", make_samples(), rate=8_000)
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file.attrs["sample_rate"] = 44_100
    assert probe_clip(path) == (LENGTH, 8_000)


@pytest.mark.parametrize(
    ("rate", "problem"),
    [
        (None, "does not state its sampling rate; it needs an attribute 'sample_rate', in Hz"),
        ("16 kHz", "has the attribute sample_rate = '16 kHz', expected Hz"),
        (16_000.5, "has the attribute sample_rate = 16000.5, expected Hz"),
        (np.nan, "has the attribute sample_rate = nan, expected Hz"),
        ([16_000, 8_000], r"sample_rate = \[16000, 8000\], expected Hz"),
        (7, "has a sampling rate of 7 Hz; 1000 to 1000000 Hz"),
    ],
)
def test_hdf5__invalid_rates(tmp_path: Path, rate: object, problem: str) -> None:
    path = write(tmp_path / "x.h5", make_samples(), rate)
    with pytest.raises(ClipError, match=problem):
        probe_clip(path)


VALUES = {
    "integers": (np.zeros(9, np.int32), "has values of type int32, expected floating-point"),
    "bytes": (np.zeros(9, np.uint8), "has values of type uint8"),
    "text": ("some text", "has values of type object"),
    "a number": (np.float32(1), r"has the shape \(\), expected \[samples\]"),
    "nothing": (h5py.Empty("f4"), "has the shape None, expected"),
    "three axes": (np.zeros((9, 2, 2), np.float32), r"has the shape \(9, 2, 2\), expected"),
    "turned": (np.zeros((2, 9_999), np.float32), r"has the shape \(2, 9999\), .* is it transposed"),
    "one row": (np.zeros((1, 800), np.float32), r"\(1, 800\), expected \[samples\] or \[sampl"),
    "channels first": (np.zeros((2, 800), np.float32), "is it transposed, or a spectrogram"),
    "no channels": (np.zeros((9, 0), np.float32), r"has the shape \(9, 0\)"),
    "no samples": (np.zeros(0, np.float32), "has no samples"),
    "not finite": (np.array([0, np.nan], np.float32), "has samples that are not finite"),
    "beyond float32": (np.array([0, 1e300]), "has samples that are not finite"),
    "loud": (np.array([0, 1e20], np.float32), r"has samples of up to 1\.0e\+20"),
}


@pytest.mark.parametrize("kind", VALUES)
def test_hdf5__datasets_without_samples(tmp_path: Path, kind: str) -> None:
    values, problem = VALUES[kind]
    path = write(tmp_path / "x.h5", values)
    with pytest.raises(ClipError, match=problem):
        read_audio(path)


def make_bad_file(folder: Path, kind: str) -> Path:
    path = write(folder / "x.h5", make_samples())
    file = path.parents[1]
    if kind == "truncated":
        file.write_bytes(file.read_bytes()[:-500])
    elif kind == "text":
        file.write_text("no HDF5 at all" * 99)
    elif kind == "gone":
        file.unlink()
    elif kind in ("key", "b", "a", "a/clip/deeper"):
        return file / kind
    return path


BAD_FILES = {
    "truncated": "cannot be read as HDF5: .*truncated file",
    "text": "cannot be read as HDF5: .*signature not found",
    "gone": "cannot be opened: ",
    "b": "the file has no key 'b'",
    "a": "the key 'a' is not of a dataset",
    "a/clip/deeper": "the file has no key 'a/clip/deeper'",
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_hdf5__error_names_the_cause(tmp_path: Path, kind: str) -> None:
    path = make_bad_file(tmp_path, kind)
    for read in (probe_clip, read_audio):
        with pytest.raises(ClipError, match=BAD_FILES[kind]):
            read(path)


def test_hdf5__unexpected_length(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", make_samples())
    with pytest.raises(ClipError, match="has 4000 samples, but 4001 were expected"):
        read_audio(path, LENGTH + 1)


def test_hdf5__damaged_bytes_give_samples_or_a_clip_error(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", make_samples())
    data = np.frombuffer((tmp_path / "x.h5").read_bytes(), dtype=np.uint8)
    random = np.random.default_rng(1)
    for number in range(60):
        damaged = data.copy()
        damaged[random.integers(0, 2_000, 4)] = random.integers(0, 256, 4)
        (tmp_path / f"{number}.h5").write_bytes(damaged.tobytes())
        try:
            waveform, _ = read_audio(tmp_path / f"{number}.h5" / "a" / "clip")
        except ClipError:
            continue
        assert waveform.isfinite().all()


def test_hdf5__links_within_the_file_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", make_samples())
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file["b/absolute"] = h5py.SoftLink("/a/clip")
        file["a/relative"] = h5py.SoftLink("clip")
        file["group"] = h5py.SoftLink("/a")
        file["hard"] = file["a/clip"]
    for key in ("b/absolute", "a/relative", "group/clip", "hard"):
        assert probe_clip(tmp_path / "x.h5" / key) == (LENGTH, RATE)


def make_links(folder: Path) -> Path:
    write(folder / "other.h5", make_samples())
    path = folder / "x.h5"
    with h5py.File(path, "w") as file:
        file["external"] = h5py.ExternalLink(str(folder / "other.h5"), "/a/clip")
        file["detour"] = h5py.SoftLink("/external")
        file["circle"] = h5py.SoftLink("/circle")
        file["nowhere"] = h5py.SoftLink("/no/where")
        file.attrs["sample_rate"] = RATE
        layout = h5py.VirtualLayout((LENGTH,), "f4")
        layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "a/clip", (LENGTH,), "f4")
        file.create_virtual_dataset("virtual", layout)
        (folder / "secret").write_bytes(bytes(LENGTH * 2))
        place = (str(folder / "secret"), 0, LENGTH * 2)
        file.create_dataset("raw", (LENGTH,), "i2", external=[place])
    return path


LINKS = {
    "external": "the key 'external' leads to another file, which is not followed",
    "detour": "the key 'detour' leads to another file",
    "circle": "the key 'circle' leads through more than 40 links",
    "nowhere": "the file has no key 'nowhere'",
    "virtual": "has its values in other files, which are not followed",
    "raw": "has its values in other files, which are not followed",
}


@pytest.mark.parametrize("key", LINKS)
def test_hdf5__external_links_are_not_followed(tmp_path: Path, key: str) -> None:
    path = make_links(tmp_path)
    with pytest.raises(ClipError, match=LINKS[key]):
        read_audio(path / key)


def test_list_datasets__clips_and_rejected_datasets(tmp_path: Path) -> None:
    path = make_links(tmp_path)
    write(path, make_samples())
    write(path, make_samples(2), key="z")
    write(path, np.arange(9), key="labels")
    write(path, "text", key="text")
    write(path, np.zeros((2, 3, 4), np.float32), key="features")
    found = dict(list_datasets(str(path)))
    assert {key for key, problem in found.items() if problem is None} == {"a/clip", "z"}
    assert set(found) == {"a/clip", "z", "features", "virtual", "raw"}
    assert "has the shape (2, 3, 4)" in str(found["features"])
    assert found["raw"] == LINKS["raw"]


def test_list_datasets__not_an_hdf5_file(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_text("no")
    with pytest.raises(ClipError, match="cannot be read as HDF5: "):
        list_datasets(str(tmp_path / "x.h5"))


def test_hdf5__plain_file_in_a_folder_named_like_hdf5(tmp_path: Path) -> None:
    (tmp_path / "x.h5").mkdir()
    soundfile.write(tmp_path / "x.h5" / "a.wav", make_samples(), 8_000)
    assert probe_clip(tmp_path / "x.h5" / "a.wav") == (LENGTH, 8_000)


def test_hdf5__library_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.h5", make_samples())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ClipError, match=r"needs h5py, which is not installed \(pip install h5py\)"):
        probe_clip(path)


def own_files() -> hdf5._OpenFiles:
    return hdf5._open_files[os.getpid()]


def test_hdf5__files_are_opened_once_and_few_stay_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "MOST_OPEN", 2)
    monkeypatch.setattr(hdf5, "_open_files", {})
    paths = [write(tmp_path / f"{number}.h5", make_samples()) for number in range(3)]
    before = len(os.listdir("/dev/fd"))
    read_audio(paths[0])
    first = own_files()._files[str(paths[0].parents[1])][1]
    read_audio(paths[1])
    read_audio(paths[0])
    assert own_files()._files[str(paths[0].parents[1])][1] is first
    read_audio(paths[2])  # replaces the second, the least recently used
    assert list(own_files()._files) == [str(path.parents[1]) for path in (paths[0], paths[2])]
    assert len(os.listdir("/dev/fd")) == before + 2
    own_files().close()
    assert len(os.listdir("/dev/fd")) == before


def test_hdf5__a_changed_file_is_reopened(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", make_samples())
    assert read_audio(path)[0].shape == (LENGTH,)
    write(tmp_path / "y.h5", make_samples()[:99])
    os.replace(tmp_path / "y.h5", tmp_path / "x.h5")
    assert read_audio(path)[0].shape == (99,)
    write(tmp_path / "y.h5", make_samples()[:7])
    (tmp_path / "x.h5").write_bytes((tmp_path / "y.h5").read_bytes())  # in place
    assert read_audio(path)[0].shape == (7,)


def test_hdf5__threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MOST_OPEN", 1)
    paths = [write(tmp_path / f"{n}.h5", np.full(LENGTH, n / 8, np.float32)) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        waveforms = pool.map(lambda path: read_audio(path)[0], paths * 20)
        assert [float(waveform[-1]) for waveform in waveforms] == [n / 8 for n in range(4)] * 20


def read_in_child(path: Path, file: object, sender: object) -> None:
    waveform, _ = read_audio(path)
    sender.send((bool(file), list(hdf5._open_files) == [os.getpid()], waveform.numpy()))


def test_hdf5__a_forked_process_opens_its_own_handles(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", make_samples())
    read_audio(path)
    file = own_files()._files[str(tmp_path / "x.h5")][1]
    receiver, sender = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=read_in_child, args=(path, file, sender))
    child.start()
    assert receiver.poll(60)
    still_open, only_its_own, waveform = receiver.recv()
    child.join()
    assert child.exitcode == 0
    assert (still_open, only_its_own) == (False, True)
    np.testing.assert_array_equal(waveform, make_samples())
    assert bool(file)
    np.testing.assert_array_equal(read_audio(path)[0], make_samples())


def test_hdf5__fork_while_another_thread_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", make_samples())
    context = multiprocessing.get_context("fork")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: [read_audio(path)[0] for _ in range(300)])
        children = [context.Process(target=read_audio, args=(path,)) for _ in range(5)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0] * 5
        assert len(reading.result()) == 300
