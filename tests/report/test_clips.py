import numpy as np
import soundfile

from eat_plugin.data.entries import locate
from eat_plugin.report.clips import ReadClip, find_neighbours, rank_worst
from eat_plugin.report.media import embed_sound


def make_clip(vector, scores=None, targets=None):
    scores, targets = (None if x is None else np.array(x) for x in (scores, targets))
    return ReadClip("clip", None, [], np.zeros((1, 1)), np.array(vector, float), scores, targets)


def test_find_neighbours__nearest_without_what_all_have_in_common():
    # The third vector points nearly where the first does, in what all have in common.
    clips = [make_clip([10, 1]), make_clip([10, 2]), make_clip([20, 2.2])]
    assert find_neighbours(clips, 2, 1) == [[0, 1], [2, 1]]
    assert find_neighbours(clips[:1], 2, 1) == []


def test_rank_worst__margin_of_the_least_true_class():
    clips = [
        make_clip([0], [0.9, 0.5, 0.1], [1, 0, 0]),
        make_clip([0], [0.2, 0.7, 0.4], [1, 1, 0]),
        make_clip([0], [0.2, 0.7, 0.4], [0, 0, 1]),
        make_clip([0], [0.2, 0.7, 0.4], [0, 0, 0]),  # without a label
    ]
    found = rank_worst(clips, 2)
    assert [number for number, _ in found] == [2, 1]
    np.testing.assert_allclose([margin for _, margin in found], [-0.3, -0.2])


def test_embed_sound__is_short_and_can_be_decoded(tmp_path):
    import base64
    import io

    path = tmp_path / "long.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, (9 * 8000, 2)), 8000)
    uri = embed_sound(locate(path))
    kind, _, content = uri.partition(";base64,")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
    assert kind == "data:audio/mpeg"
    assert rate == 16000
    assert abs(len(samples) / rate - 5) < 0.2
    (tmp_path / "text.wav").write_text("no sound")
    assert embed_sound(locate(tmp_path / "text.wav")) is None
