import json

import pytest
import soundfile

from eat_plugin.cli import main
from eat_plugin.prepare import demo_set
from eat_plugin.prepare.demo_sounds import KINDS, synthesise_clip


def write_demo_set(out, clips_per_class, seed):
    return demo_set.write_demo_set(out, clips_per_class, seed, lambda items, *_: items)


def audio_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_demo__writes_one_folder_per_class(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "set"), "--clips-per-class", "2"]) == 0
    files = audio_files(tmp_path / "set" / "audio")
    assert {path.parent.name for path in files} == set(KINDS)
    assert len(files) == 2 * len(KINDS)
    assert all(
        path.stem in (f"{path.parent.name}_000", f"{path.parent.name}_001") for path in files
    )
    assert capsys.readouterr().out == f"{tmp_path}/set/audio: 12 clips of {len(KINDS)} kinds\n"


def test_demo__refuses_a_folder_with_other_files(tmp_path, capsys):
    (tmp_path / "dog").mkdir()
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert f"{tmp_path} holds other files; choose a new folder" in capsys.readouterr().err
    assert not (tmp_path / "audio").exists()


def test_demo__files_hold_the_clips_in_their_encoding(tmp_path):
    audio = write_demo_set(tmp_path, clips_per_class=1, seed=3)
    for path in audio_files(audio):
        clip = synthesise_clip(path.parent.name, 0, seed=3)
        info = soundfile.info(path)
        assert info.format.lower() == path.suffix[1:] == clip.encoding.extension
        assert info.subtype == clip.encoding.subtype
        assert (info.samplerate, info.channels) == (
            clip.encoding.sample_rate,
            clip.encoding.num_channels,
        )
        samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
        assert abs(samples - clip.samples).max() <= 1 / 2**15


def test_demo__second_run_changes_nothing(tmp_path):
    audio = write_demo_set(tmp_path, clips_per_class=1, seed=0)
    before = {path: path.stat().st_mtime_ns for path in audio_files(tmp_path)}
    assert write_demo_set(tmp_path, clips_per_class=1, seed=0) == audio
    assert {path: path.stat().st_mtime_ns for path in audio_files(tmp_path)} == before


def test_demo__an_interrupted_set_is_completed(tmp_path):
    audio = write_demo_set(tmp_path, clips_per_class=1, seed=0)
    files = audio_files(audio)
    content = files[0].read_bytes()
    files[0].write_bytes(b"cut off")
    (tmp_path / demo_set.RECORD).unlink()
    write_demo_set(tmp_path, clips_per_class=1, seed=0)
    assert files[0].read_bytes() == content
    assert audio_files(audio) == files
    assert json.loads((tmp_path / demo_set.RECORD).read_text())["seed"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clips-per-class", "0"], "--clips-per-class: must be 1 or more, got 0"),
        (["--seed", "-1"], "--seed: must be 0 or more, got -1"),
    ],
)
def test_demo__numbers_out_of_range_are_one_line(tmp_path, capsys, arguments, message):
    assert main(["demo", "--out", str(tmp_path / "set"), *arguments]) == 2
    assert capsys.readouterr().err == f"eat demo: error: argument {message} (see eat demo --help)\n"
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("name", ["file", "file/set", "sounds.zip"])
def test_demo__refuses_a_file_in_place_of_the_folder(tmp_path, capsys, name):
    (tmp_path / "file").touch()
    assert main(["demo", "--out", str(tmp_path / name)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"eat demo: error: --out is {tmp_path / name}")
    assert shown.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_demo__refuses_to_mix_two_sets(tmp_path):
    write_demo_set(tmp_path, clips_per_class=1, seed=0)
    with pytest.raises(ValueError, match="holds a set with other settings"):
        write_demo_set(tmp_path, clips_per_class=1, seed=1)
