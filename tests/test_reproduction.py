"""The record of a run: revision, versions, data, and sums over resumed parts."""

import subprocess

from eat_plugin.reproduction import (
    add_part,
    describe_record,
    find_revision,
    fingerprint_splits,
    list_versions,
)


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_find_revision__says_whether_files_were_changed(tmp_path):
    assert find_revision(tmp_path) is None
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "-m", "none", "--allow-empty")
    (tmp_path / "__init__.py").write_text("one")
    assert find_revision(tmp_path) is None  # the repository does not have the package
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "runs").write_text("not of the repository")
    assert find_revision(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "__init__.py").write_text("two")
    assert find_revision(tmp_path) == {"commit": commit, "dirty": True}


def test_find_revision__without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_revision() is None


def test_list_versions__has_python_and_torch():
    import torch

    found = list_versions()
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["python"].startswith("3.")


def test_fingerprint_splits__ignores_the_root_alone(tmp_path):
    def write(root, clips, labels="a\tdog\n"):
        (tmp_path / "train.tsv").write_text(f"{root}\n{clips}")
        (tmp_path / "train.lbl").write_text(labels)
        return fingerprint_splits(tmp_path, ["train", "", "eval"])

    first = write("/one", "a.wav\t5\n")
    assert first.keys() == {"train"}
    assert write("/two", "a.wav\t5\n") == first
    assert write("/one", "a.wav\t6\n")["train"]["clips_sha256"] != first["train"]["clips_sha256"]
    other = write("/one", "a.wav\t5\n", "b\tdog\n")["train"]
    assert other["clips_sha256"] == first["train"]["clips_sha256"]
    assert other["labels_sha256"] != first["train"]["labels_sha256"]


def part(start, hours, clips, device="CPU"):
    return {
        "from_update": start, "processes": 2, "device": device, "git": None,
        "versions": {"torch": "2.0"}, "data": {}, "hours": hours, "clips": clips,
    }  # fmt: skip


def test_add_part__grows_in_the_same_surroundings():
    parts = add_part([], part(0, 1.0, 10))
    parts = add_part(parts, part(100, 0.5, 4))
    assert parts == [part(0, 1.5, 14)]
    parts = add_part(parts, part(200, 2.0, 6, "GPU"))
    assert parts == [part(0, 1.5, 14), part(200, 2.0, 6, "GPU")]
    lines = describe_record({"seed": 7, "parts": parts})
    assert lines[0] == "seed 7, 20 clips seen, 1.5 h on CPU, 2 h on GPU"
    assert lines[1:3] == ["from update 0: 2 x CPU", "  git: no repository"]
    lines = describe_record({"seed": 7, "parts": [part(50, 1.0, 1)]})
    assert lines[1] == "not counted: the first 50 updates, without a record"
