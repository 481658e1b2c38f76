"""Labels in WebDataset shards."""

import pytest

from eat_plugin.prepare.webdataset import arrange_webdataset


def labels_of(names: list, texts: dict, key: "str | None" = None) -> dict:
    found = arrange_webdataset(names, texts, key, "train")
    assert {item.split for item in found.items} <= {"train"}
    return {item.name: item.labels for item in found.items}


def reason(text: bytes, ending: str = "json", key: "str | None" = None) -> str:
    found = arrange_webdataset(["x.tar/a.wav"], {f"x.tar/a.{ending}": text}, key, "train")
    ((name, problem),) = found.rejected
    assert name == "x.tar/a.wav"
    assert not found.items
    return problem


def test_arrange_webdataset__a_key_ends_at_the_first_dot_of_the_name() -> None:
    names = ["x.tar/a.wav", "x.tar/b.left.wav", "x.tar/v1.0/a.wav", "y.tar/a.wav"]
    texts = {
        *(("x.tar/a.cls", b"cat\n"), ("x.tar/b.cls", b"10"), ("x.tar/v1.0/a.cls", b"a dog")),
        *(("y.tar/a.cls", b"9"), ("y.tar/unused.cls", b"bird")),
    }
    assert labels_of(names, dict(texts)) == {
        "x.tar/a.wav": ("cat",),
        "x.tar/b.left.wav": ("10",),
        "x.tar/v1.0/a.wav": ("a dog",),
        "y.tar/a.wav": ("9",),
    }


def test_arrange_webdataset__classes_are_sorted_as_numbers() -> None:
    texts = {f"x.tar/{n}.cls": str(n).encode() for n in (9, 10, 100)}
    found = arrange_webdataset([f"x.tar/{n}.wav" for n in (10, 100, 9)], texts, None, "train")
    assert found.label_set.ids == ("9", "10", "100")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (b'{"label": "cat"}', ("cat",)),
        (b'{"label": 7}', ("7",)),
        (b'{"label": ["b", "a", 3, "b"]}', ("b", "a", "3")),
        ('{"label": "\u97f3"}'.encode(), ("\u97f3",)),
    ],
)
def test_arrange_webdataset__labels_in_json(text: bytes, labels: tuple) -> None:
    assert labels_of(["x.tar/a.wav"], {"x.tar/a.json": text}) == {"x.tar/a.wav": labels}


def test_arrange_webdataset__cls_is_read_first_unless_a_key_is_given() -> None:
    texts = {"x.tar/a.cls": b"cat", "x.tar/a.json": b'{"label": "dog", "kind": "bird"}'}
    assert labels_of(["x.tar/a.wav"], texts) == {"x.tar/a.wav": ("cat",)}
    assert labels_of(["x.tar/a.wav"], texts, "label") == {"x.tar/a.wav": ("dog",)}
    assert labels_of(["x.tar/a.wav"], texts, "kind") == {"x.tar/a.wav": ("bird",)}


def test_arrange_webdataset__a_label_in_a_list_may_hold_a_comma() -> None:
    texts = {"x.tar/a.json": b'{"label": ["man, speaking", "dog"]}'}
    assert labels_of(["x.tar/a.wav"], texts) == {"x.tar/a.wav": ("man, speaking", "dog")}


def test_arrange_webdataset__no_label() -> None:
    found = arrange_webdataset(["a.wav", "x.tar/a.wav"], {"x.tar/b.cls": b"cat"}, None, "train")
    problem = "has no label: its shard has no .cls or .json with its key"
    assert found.rejected == [("a.wav", problem), ("x.tar/a.wav", problem)]
    assert reason(b"cat", "cls", "kind") == ("has no label: its shard has no .json with its key")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "has a .cls with an invalid label: an empty label"),
        (b" \n", "an empty label"),
        (b"a,b", """'a,b' holds a comma; write labels as a list in the .json, as ["a, b"] or"""),
        (b"a\nb", "holds a line break"),
        (b"caf\xe9", "has a .cls that is not UTF-8"),
    ],
)
def test_arrange_webdataset__rejects_an_invalid_cls(text: bytes, problem: str) -> None:
    assert problem in reason(text, "cls")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"{", "has an invalid .json: Expecting"),
        (b"[" * 100_000, "has an invalid .json"),
        (b'["cat"]', "has a .json without 'label'"),
        (b'{"kind": "cat"}', "has a .json without 'label'"),
        (b'{"label": null}', "'label' = None, expected a string, an integer or a list"),
        (b'{"label": true}', "'label' = True, expected"),
        (b'{"label": 1.5}', "'label' = 1.5, expected"),
        (b'{"label": [["cat"]]}', "'label' = ['cat'], expected"),
        (b'{"label": []}', "has no label: 'label' in its .json is an empty list"),
        (b'{"label": "a,b"}', "has a .json with an invalid label: 'a,b' holds a comma; write"),
        (b'{"label": "\\ud800"}', "has a .json with an invalid label: 'utf-8' codec"),
        (b"\xff", "has a .json that is not UTF-8"),
    ],
)
def test_arrange_webdataset__rejects_json_without_a_label(text: bytes, problem: str) -> None:
    assert problem in reason(text)
