"""Alarms: levels, trends, and what is said once."""

from eat_plugin.monitoring.alarms import Watch
from eat_plugin.monitoring.values import PATCH_VARIANCE, TARGET_ACROSS, TARGET_RANK


def values(across=0.3, rank=20.0, variance=0.5):
    return {TARGET_ACROSS: across, TARGET_RANK: rank, PATCH_VARIANCE: variance}


def test_watch__is_quiet_in_a_healthy_run():
    watch = Watch()
    for across, rank in ((0.35, 20.9), (0.033, 6.4), (0.12, 9.8)):
        assert watch.judge(values(across, rank)) == ([], "")


def test_watch__warns_before_a_collapse_and_once():
    watch = Watch()
    watch.judge(values())
    (warning,), collapse = watch.judge(values(rank=3.9))
    assert warning.startswith("the run may collapse: the teacher's targets keep few directions")
    assert "(monitor_target_rank=3.9, 20 at its start)" in warning
    assert "change: model.instance_norm_target_layer=true" in warning
    assert collapse == ""
    assert watch.judge(values(rank=3.8)) == ([], "")
    (warning,), collapse = watch.judge(values(rank=1.9))
    assert warning.startswith("the run has collapsed")
    assert collapse == warning
    assert watch.judge(values(rank=1.8))[0] == []
    assert watch.judge(values(rank=1.8))[1].startswith("the run has collapsed")


def test_watch__targets_that_are_the_same_for_all_clips_are_no_trend():
    (warning,), collapse = Watch().judge(values(across=0.0))
    assert "the same targets for every clip" in warning
    assert collapse


def test_watch__little_spread_across_clips_is_an_alarm_after_a_fall():
    watch = Watch()
    watch.judge(values(across=0.02))
    assert watch.judge(values(across=0.005)) == ([], "")  # as of clips that are mostly padding
    (warning,), collapse = watch.judge(values(across=0.003))
    assert "may collapse" in warning
    assert collapse == ""
    watch = Watch()
    watch.judge(values(across=0.9))
    assert watch.judge(values(across=0.02)) == ([], "")
    assert watch.judge(values(across=0.0005))[1].startswith("the run has collapsed")


def test_watch__patches_that_are_alike():
    watch = Watch()
    watch.judge(values(variance=0.2))
    assert watch.judge(values(variance=0.03)) == ([], "")
    (warning,), collapse = watch.judge(values(variance=0.0136))
    assert "may collapse: the student's encoder gives nearly the same vector" in warning
    assert collapse == ""
    assert "has collapsed" in watch.judge(values(variance=0.0004))[1]


def test_watch__state_without_a_value_starts_with_it():
    watch = Watch()
    watch.judge(values())
    state = watch.state()
    del state["start"][PATCH_VARIANCE]
    resumed = Watch(state)
    assert resumed.judge(values(variance=0.05)) == ([], "")
    assert resumed.judge(values(variance=0.009))[0]


def test_watch__recovers_and_continues_from_its_state():
    watch = Watch()
    watch.judge(values())
    watch.judge(values(rank=3.0))
    resumed = Watch(watch.state())
    assert resumed.judge(values(rank=3.0)) == ([], "")  # said before
    assert resumed.judge(values(rank=10.0)) == ([], "")
    assert len(resumed.judge(values(rank=3.0))[0]) == 1
