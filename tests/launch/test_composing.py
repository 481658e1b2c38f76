"""Overrides as a user writes them become a whole configuration, or an error of one line."""

import pytest

from eat_plugin.choices import CONFIG_DIR
from eat_plugin.launch.composing import ADD, compose, parse_override, quote
from tests.versions import recent_hydra

USER_DIR, DATA = "common.user_dir=/x/eat_plugin", "task.data=/data"


def make(*overrides, name="pretrain", folder=CONFIG_DIR):
    return compose(name, [USER_DIR, DATA, *overrides], folder)


def test_compose__groups_and_options():
    composed = make("size=tiny", "model.depth=2")
    assert (composed.cfg.model.depth, composed.cfg.model.embed_dim) == (2, 192)
    assert composed.overrides == [USER_DIR, DATA, "size=tiny", "model.depth=2"]


def test_compose__options_that_the_yaml_leaves_out_need_no_plus():
    composed = make("optimization.update_freq=4", "model.modalities.image.mask_prob_min=null")
    assert composed.cfg.optimization.update_freq == [4]
    assert composed.overrides[2:] == [
        "optimization.update_freq=[4]", f"{ADD}model.modalities.image.mask_prob_min=null",
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["0.001", "[0.001]", "1e-3"])
def test_compose__one_value_of_a_list_needs_no_brackets(value):
    assert make(f"optimization.lr={value}").cfg.optimization.lr == [0.001]


def test_compose__options_of_another_task_follow_its_name():
    composed = make("model.model_path=null", name="finetune")
    assert composed.cfg.model.mask_ratio == 0.2
    with pytest.raises(ValueError, match="there is no option 'model.mask_ratio'"):
        make("model.mask_ratio=0.3")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimization.lrr=1",
            "there is no option 'optimization.lrr'; did you mean optimization.lr",
        ),
        ("optimizer.max_update=1", "'optimizer.max_update'; did you mean optimization.max_update"),
        ("batch_size=3", "there is no option 'batch_size'; did you mean dataset.batch_size"),
        ("+model.detph=3", "there is no option 'model.detph'; did you mean model.depth"),
        ("size=tinny", "there is no size 'tinny'; did you mean tiny?"),
        ("size=huge", "there is no size 'huge'; choose one of base, large, small, tiny"),
        ("siez=tiny", "there is no option 'siez'; did you mean size"),
        ("optimization.max_update", "is not an override; write option=value"),
        ("optimization.max_update=many", "optimization.max_update=many: .*Integer"),
        ("model.depth=deep", "model.depth=deep: .*Integer"),
        ("task.data=[", r"task.data=\[: no viable"),
    ],
)
def test_compose__mistakes_are_one_line_with_a_remedy(override, message):
    with pytest.raises(ValueError, match=message) as error:
        make(override)
    assert "\n" not in str(error.value)


def test_compose__unknown_configuration():
    with pytest.raises(ValueError, match="no configuration 'pretrian'; did you mean pretrain"):
        make(name="pretrian")


def test_compose__group_that_a_configuration_does_not_have():
    with pytest.raises(ValueError, match="'size' cannot be chosen with .* 'image_pretrain'; set"):
        make("size=tiny", name="image_pretrain")


def test_compose__folder_of_your_own(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        (CONFIG_DIR / "pretrain.yaml").read_text().replace("  - size: base\n", "")
    )
    assert make("model.depth=3", name="mine", folder=tmp_path).cfg.model.depth == 3


def test_compose__yaml_that_cannot_be_parsed(tmp_path):
    (tmp_path / "mine.yaml").write_text("task:\n  crop: [start\nmodel: {}\n")
    with pytest.raises(ValueError, match=r"mine.yaml:3: .*expected") as error:
        make(name="mine", folder=tmp_path)
    assert "\n" not in str(error.value)


def test_compose__relative_paths_are_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a model.pt").touch()
    composed = make("model.model_path='a model.pt'", name="finetune")
    assert composed.cfg.model.model_path == str(tmp_path / "a model.pt")
    (tmp_path / "labelled").mkdir()
    composed = make("task.monitor.data=labelled")
    assert composed.cfg.task.monitor.data == str(tmp_path / "labelled")


@pytest.mark.parametrize(
    "text",
    [
        "/a b/c", "/it's", "/a,b=[1]", "/plain/x-1.pt",
        pytest.param("/back\\slash\\", marks=recent_hydra),
    ],
)  # fmt: skip
def test_quote__hydra_reads_the_same_text(text):
    composed = make(f"checkpoint.save_dir={quote(text)}")
    assert composed.cfg.checkpoint.save_dir == text


def test_parse_override__signs():
    assert parse_override("++a.b=c=d") == ("++", "a.b", "c=d")
    assert parse_override("~a.b") == ("~", "a.b", None)
