"""Layouts that read splits and labels from paths."""

from pathlib import Path

import pytest

from eat_plugin.data.tables import TableError
from eat_plugin.prepare.arrangement import Arrangement, Item, sort_classes
from eat_plugin.prepare.path_layouts import (
    arrange_folders,
    arrange_pattern,
    arrange_plain,
    arrange_speech_commands,
)


def labels_of(found: Arrangement) -> dict:
    return {item.name: (item.split, *item.labels) for item in found.items}


def test_sort_classes__numbers_as_numbers() -> None:
    def ids(*labels: str) -> tuple:
        return sort_classes(Item("", "", (label,)) for label in labels).ids

    assert ids("10", "9", "100", "9") == ("9", "10", "100")
    assert ids("10", "9", "b", "B") == ("10", "9", "B", "b")


def test_arrange_plain__no_labels() -> None:
    found = arrange_plain(["a", "b"], "all")
    assert found == Arrangement([Item("a", "all", ()), Item("b", "all", ())])


def test_arrange_folders__uses_the_first_folder() -> None:
    found = arrange_folders(["cat/1", "dog/1", "dog/deep/cat/2", "z.wav"], "train")
    assert labels_of(found) == {
        "cat/1": ("train", "cat"),
        "dog/1": ("train", "dog"),
        "dog/deep/cat/2": ("train", "dog"),
    }
    assert found.rejected == [("z.wav", "is not in a folder named after its class")]
    assert found.label_set.ids == ("cat", "dog")


def test_arrange_folders__an_archive_is_a_folder_without_its_ending() -> None:
    names = ["bird.H5/1", "cat.tar/deep/1.wav", "cat/1.wav", "dog.zip/1.wav", "v1.0/1.wav"]
    found = arrange_folders(names, "train")
    assert [item.labels for item in found.items] == [
        *(("bird",), ("cat",), ("cat",), ("dog",), ("v1.0",))
    ]


def test_arrange_folders__refuses_splits() -> None:
    with pytest.raises(ValueError, match="folders Test, train are splits, .* --layout pattern"):
        arrange_folders(["Test/dog/1", "train/dog/1"], "train")
    assert arrange_folders(["bus/1", "train/1"], "train").label_set.ids == ("bus", "train")
    assert arrange_folders(["train/1"], "train").label_set.ids == ("train",)
    assert len(arrange_folders(["1.wav"], "train").rejected) == 1


def test_arrange_folders__a_label_may_hold_a_comma() -> None:
    found = arrange_folders(["cat/1", "dog, small/1"], "train")
    assert found.label_set.ids == ("cat", "dog, small")


def test_arrange_folders__refuses_an_invalid_label() -> None:
    with pytest.raises(ValueError, match="' dog' begins or ends with a space"):
        arrange_folders(["cat/1", " dog/1"], "train")


def test_arrange_pattern__labels_and_groups() -> None:
    names = ["anna/dog_1", "ben/cat_1", "ben/dog_2", "carl/3", "cat_9"]
    pattern = r"^(?:(?P<group>[a-z]+)/)?(?P<label>[a-z]+)_"
    found = arrange_pattern(names, pattern, ["ben"], "train")
    assert labels_of(found) == {
        "anna/dog_1": ("train", "dog"),
        "ben/cat_1": ("eval", "cat"),
        "ben/dog_2": ("eval", "dog"),
        "cat_9": ("train", "cat"),
    }
    assert found.rejected == [("carl/3", "has no label that matches --pattern")]
    assert found.label_set.ids == ("cat", "dog")
    assert {item.split for item in arrange_pattern(names, pattern, None, "x").items} == {"x"}


def test_arrange_pattern__rejects_an_empty_or_unmatched_label() -> None:
    found = arrange_pattern(["1_", "2", "3_a"], r"\d(?:_(?P<label>.*))?", None, "train")
    assert labels_of(found) == {"3_a": ("train", "a")}
    assert [name for name, _ in found.rejected] == ["1_", "2"]


@pytest.mark.parametrize(
    ("pattern", "groups", "problem"),
    [
        ("(?P<label>", None, r"'\(\?P<label>' is not a regular expression: missing \)"),
        ("(?P<lable>.)", None, r"needs a group \(\?P<label>...\)$"),
        ("(?P<label>.)", ["x"], r"needs a group \(\?P<group>...\) for --valid-groups"),
        ("(?P<group>.)(?P<label>.)", ["a", "z", "y"], "has the group 'y'; the groups are 'a', 'c'"),
    ],
)
def test_arrange_pattern__refuses(pattern: str, groups: list, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        arrange_pattern(["ab", "cd"], pattern, groups, "train")


def write_lists(folder: Path, validation: str, testing: str) -> None:
    (folder / "validation_list.txt").write_text(validation)
    (folder / "testing_list.txt").write_text(testing)


def test_arrange_speech_commands__official_split(tmp_path: Path) -> None:
    write_lists(tmp_path, "yes/2.wav\nno/gone.wav\n", "no/1.wav\n\n")
    names = ["_background_noise_/a.wav", "b.wav", "no/1.wav", "no/2.wav", "yes/1.wav", "yes/2.wav"]
    found = arrange_speech_commands(tmp_path, names)
    assert labels_of(found) == {
        "no/1.wav": ("eval", "no"),
        "no/2.wav": ("train", "no"),
        "yes/1.wav": ("train", "yes"),
        "yes/2.wav": ("valid", "yes"),
    }
    assert found.label_set.ids == ("no", "yes")
    assert dict(found.rejected) == {
        "b.wav": "is not in a folder named after its word",
        "no/gone.wav": "is in validation_list.txt, but does not exist",
    }


def test_arrange_speech_commands__a_file_listed_twice(tmp_path: Path) -> None:
    write_lists(tmp_path, "yes/2.wav\n", "no/1.wav\nyes/2.wav\n")
    with pytest.raises(TableError, match="testing_list.txt:2: 'yes/2.wav' is already in valid"):
        arrange_speech_commands(tmp_path, [])


def test_arrange_speech_commands__no_list(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="validation_list.txt: cannot be read: No such file"):
        arrange_speech_commands(tmp_path, ["yes/1.wav"])
