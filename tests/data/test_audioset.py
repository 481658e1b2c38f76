"""AudioSet's classes."""

import hashlib

from eat_plugin.data.audioset import CLASSES, NUM_CLASSES, audioset_classes, with_audioset_names
from eat_plugin.data.label_set import LabelSet


def test_audioset__the_published_file():
    # Two packages that ship AudioSet's file hold these bytes.
    digest = hashlib.sha256(CLASSES.read_bytes()).hexdigest()
    assert digest == "cdd1049833c4b86127c2773ac0d14a2754b6a6d0d1798002ed5c66e699708429"


def test_audioset__527_classes():
    classes = audioset_classes()
    assert len(classes) == len(set(classes.names)) == NUM_CLASSES == 527
    for index, label, name in (
        (0, "/m/09x0r", "Speech"), (13, "/t/dd00135", "Children shouting"),
        (137, "/m/04rlf", "Music"), (345, "/m/08j51y", "Dental drill, dentist's drill"),
        (433, "/g/122z_qxw", "Firecracker"), (526, "/m/07hvw1", "Field recording"),
    ):  # fmt: skip
        assert (classes.ids[index], classes.names[index]) == (label, name)


def test_with_audioset_names__leaves_names_and_other_ids():
    named = LabelSet(("/m/09x0r", "dog"), ("Talk", "A dog"))
    assert with_audioset_names(named) == named
    named = LabelSet(("/m/09x0r", "/m/04rlf"), ("Talk", "/m/04rlf"))
    assert with_audioset_names(named).names == ("Talk", "Music")
    assert with_audioset_names(LabelSet(("dog", "/m/04rlf"))).names == ("dog", "Music")
