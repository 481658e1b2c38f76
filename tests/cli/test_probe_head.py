"""`eat probe --head`, end to end."""

import json
import os

import pytest

from eat_plugin.cli import main
from eat_plugin.inference import tokens as kept
from tests.cli.test_probe import results, write_data

QUICK = ("--updates", "40", "--prototypes", "6")


@pytest.fixture(scope="module")
def pretrained(make_checkpoint):
    return make_checkpoint("pretraining")


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


def run(checkpoint, data, head, *arguments):
    command = ["probe", "--checkpoint", checkpoint, "--data", data, "--head", head]
    return main([*map(str, command), "--resamples", "50", *map(str, arguments)])


@pytest.mark.parametrize("head", ["cgp", "lcgp", "linear"])
def test_head__figure_blocks_and_chart(pretrained, data, tmp_path, capsys, head):
    out = tmp_path / "out"
    given = QUICK if head == "cgp" else QUICK[:2]
    assert run(pretrained, data, head, "--out", out, "--json", *given) == 0
    found = results(capsys)
    assert json.loads((out / "probe.json").read_text()) == found
    assert (found["head"], found["updates"], found["metric"]) == (head, 40, "accuracy")
    assert found["prototypes"] == (6 if head == "cgp" else 0)
    assert found["low"] <= found["value"] <= found["high"]
    assert [row["block"] for row in found["blocks"]] == [1, 2]
    weights = [row["weight"] for row in found["blocks"]]
    if head == "linear":
        assert weights == [None, None]
        assert found["value"] == found["blocks"][-1]["linear"]["value"]
    else:
        assert sum(weights) == pytest.approx(1)
        assert weights[0] != 0.5
    assert {path.name for path in out.iterdir()} == {
        "probe.json", "probe.md", "probe.png", "missing.tsv",
    }  # fmt: skip
    assert (out / "probe.png").read_bytes().startswith(b"\x89PNG")
    assert (found["train"]["n_clips"], found["heldout"]["n_clips"]) == (20, 12)


def test_head__a_table_and_the_choice_by_size(pretrained, data, capsys):
    assert run(pretrained, data, "lcgp", "--updates", "3") == 0
    said = capsys.readouterr().out
    assert "head: lcgp, 3 updates, seed 0\n" in said
    assert "| block | weight | linear probe of this block" in said
    assert "lcgp: " in said


def test_head__same_for_a_seed_wherever_features_are(
    pretrained, data, tmp_path, capsys, monkeypatch
):
    folder, figures, read = tmp_path / "features", [], []
    original = kept.TokenReader.read

    def count(self, entries):
        read.append(len(entries))
        return original(self, entries)

    monkeypatch.setattr(kept.TokenReader, "read", count)
    runs = [(), ("--features", folder), ("--features", folder), ("--seed", 3)]
    for given in runs:
        assert run(pretrained, data, "cgp", "--json", *QUICK, *given) == 0
        found = results(capsys)
        figures.append([found["value"], *(row["weight"] for row in found["blocks"])])
    assert figures[0] == figures[1] == figures[2] != figures[3]
    assert read == [20, 12] * 3  # the third run has those of the second
    monkeypatch.setattr(kept, "MOST_OF_DISK", 0)  # nothing fits: computed in each pass
    monkeypatch.setattr(kept, "TRIED", 1)
    assert run(pretrained, data, "cgp", "--json", *QUICK) == 0
    said = capsys.readouterr()
    assert "the features of eval would take more than half of the free space" in said.err
    found = json.loads(said.out)
    again = [found["value"], *(row["weight"] for row in found["blocks"])]
    assert again == pytest.approx(figures[0], abs=1e-4)
    assert len(read) > 40


def test_head__features_of_another_checkpoint_are_refused(
    pretrained, make_checkpoint, data, tmp_path, capsys
):
    folder = tmp_path / "features"
    assert run(pretrained, data, "cgp", *QUICK, "--features", folder) == 0
    capsys.readouterr()
    other = make_checkpoint("pretraining", task_norm_mean=-5.0, task_norm_std=4.0)
    assert run(other, data, "cgp", *QUICK, "--features", folder) == 2
    assert f"{folder} holds the features of another checkpoint" in capsys.readouterr().err


def test_head__features_of_other_sounds_of_the_same_names_are_refused(
    pretrained, data, tmp_path, capsys
):
    folder = tmp_path / "features"
    assert run(pretrained, data, "cgp", *QUICK, "--features", folder) == 0
    assert not list(folder.glob("*.draft*"))
    path = data / "audio" / "train03.wav"
    path.write_bytes(path.read_bytes()[:-2] + b"\1\1")
    os.utime(path, (1, 1))
    assert run(pretrained, data, "cgp", *QUICK, "--features", folder) == 2
    assert f"{folder} holds the features of" in capsys.readouterr().err


def test_head__unusable_clips_are_named_and_left_out(pretrained, data, capsys):
    (data / "audio" / "train03.wav").write_bytes(b"no audio")
    assert run(pretrained, data, "cgp", "--json", *QUICK) == 1
    said = capsys.readouterr()
    assert "train03.wav" in said.err
    found = json.loads(said.out)
    assert found["train"]["n_clips"] == 19
    assert found["train"]["n_missing"] == 1


def test_head__several_labels_per_clip(pretrained, data, capsys):
    path = data / "train.lbl"
    path.write_text(path.read_text().replace("\tup", "\tup,down", 1))
    assert run(pretrained, data, "cgp", "--json", *QUICK) == 0
    assert results(capsys)["metric"] == "mAP"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--head", "lcgp", "--prototypes", "3"), "--prototypes is for --head cgp, not for lcgp"),
        (("--head", "linear", "--features", "x"), "--features is for --head cgp, not for linear"),
        (("--head", "cgp", "--layer", "1"), "--layer is for vectors; --head takes all blocks"),
        (("--updates", "3"), "--updates needs --head"),
    ],
)
def test_head__an_error_is_one_line(pretrained, data, capsys, arguments, message):
    command = ["probe", "--checkpoint", pretrained, "--data", data, *arguments]
    assert main([*map(str, command)]) == 2
    assert message in capsys.readouterr().err
