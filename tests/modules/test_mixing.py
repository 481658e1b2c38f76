"""Augmentations of a batch: by hand, in every mode, and their distribution.

Tolerances: means of M draws are held to 4.5 standard errors, std / sqrt(M), with fixed seeds.
"""

import math

import pytest
import torch

from eat_plugin.modules import mixing
from eat_plugin.modules.mixing import mask_spectrogram, mix_batch, smooth_targets

MODES = ["batch", "pair", "elem"]
LIMIT = 4.5


def assert_mean(values, mean, std):
    assert abs(values.double().mean().item() - mean) < LIMIT * std / math.sqrt(len(values))


def mix(num_clips, seed=0, size=(8, 6), channels=1, **options):
    """Mix clips whose bins and targets identify them.

    Returns:
        The share that each clip keeps of itself by its targets [B], and by bin [B, T, F].
    """
    torch.manual_seed(seed)
    owner = torch.arange(num_clips, dtype=torch.float64)
    source = owner.view(-1, 1, 1, 1).expand(num_clips, channels, *size)
    settings = {"mixup": 0.0, "cutmix": 0.0, "prob": 1.0, "switch_prob": 0.5, "mode": "elem"}
    mixed, targets, _ = mix_batch(source, torch.eye(num_clips).double(), **{**settings, **options})
    assert mixed.shape == source.shape
    assert (mixed == mixed[:, :1]).all()  # all channels are equal
    partner = owner.flip(0)
    rows = torch.arange(num_clips)
    share = torch.where(rows == rows.flip(0), 1.0, targets[rows, rows])
    by_partner = torch.where(rows == rows.flip(0), 0.0, targets[rows, rows.flip(0)])
    torch.testing.assert_close(share + by_partner, torch.ones(num_clips).double())
    distance = (owner - partner).view(-1, 1, 1)
    distance[distance == 0] = 1.0
    return share, ((mixed[:, 0] - partner.view(-1, 1, 1)) / distance)


def test_mix_batch__mixup_by_hand(monkeypatch):
    shares = torch.tensor([0.75, 0.5])
    monkeypatch.setattr("eat_plugin.modules.mixing._draw_beta", lambda *_: shares)
    source = torch.tensor([[1.0, 2.0], [5.0, 10.0]]).view(2, 1, 1, 2)
    options = {"mixup": 0.8, "cutmix": 0.0, "prob": 1.0, "switch_prob": 0.0}
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    mixed, mixed_targets, _ = mix_batch(source, targets, **options, mode="elem")
    assert mixed.flatten(1).tolist() == [[2.0, 4.0], [3.0, 6.0]]
    assert mixed_targets.tolist() == [[0.75, 0.0, 1.0], [0.5, 0.0, 1.0]]
    for mode in ("batch", "pair"):  # 0.75 for both
        mixed, mixed_targets, _ = mix_batch(source, targets, **options, mode=mode)
        assert mixed.flatten(1).tolist() == [[2.0, 4.0], [4.0, 8.0]]
        assert mixed_targets.tolist() == [[0.75, 0.0, 1.0], [0.25, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("centre", "rows", "columns"),
    [
        # Sides int(8 * 0.5) = 4 and int(6 * 0.5) = 3; from centre - side // 2.
        ((0.5, 0.5), range(2, 6), range(2, 5)),  # around (4, 3)
        ((0.0, 0.0), range(2), range(2)),  # -2..1 and -1..1, cut off at the border
        ((0.999, 0.999), range(5, 8), range(4, 6)),  # around (7, 5): 5..8 and 4..6
    ],
)
def test_mix_batch__cutmix_by_hand(monkeypatch, centre, rows, columns):
    monkeypatch.setattr("eat_plugin.modules.mixing._draw_beta", lambda *_: torch.full((2,), 0.75))
    monkeypatch.setattr(torch, "rand", lambda *_: torch.tensor([centre, centre]))
    source = torch.stack([torch.zeros(1, 8, 6), torch.ones(1, 8, 6)])
    mixed, targets, _ = mix_batch(
        source, torch.eye(2), mixup=0.0, cutmix=1.0, prob=1.0, switch_prob=0.0, mode="batch"
    )
    expected = torch.zeros(8, 6)
    expected[rows.start : rows.stop, columns.start : columns.stop] = 1
    assert torch.equal(mixed[0, 0], expected)
    assert torch.equal(mixed[1, 0], 1 - expected)
    share = 1 - len(rows) * len(columns) / 48
    torch.testing.assert_close(targets, torch.tensor([[share, 1 - share], [1 - share, share]]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_clips", [1, 2, 6, 7])
@pytest.mark.parametrize("channels", [1, 2])
def test_mix_batch__cutmix_weights_targets_by_area(mode, num_clips, channels):
    for seed in range(20):
        share, bins = mix(num_clips, seed, channels=channels, cutmix=1.0, mode=mode)
        own = bins.round()
        torch.testing.assert_close(bins, own)  # a bin belongs to one of the two
        middle = torch.arange(num_clips) * 2 == num_clips - 1
        own[middle] = 1.0
        # The share of the targets was computed in float32.
        torch.testing.assert_close(own.mean(dim=(1, 2)), share, atol=1e-6, rtol=0)
        for grid in 1 - own:  # the rest is a full rectangle
            height, width = grid.amax(dim=1).sum(), grid.amax(dim=0).sum()
            assert grid.sum() == height * width


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_clips", [1, 2, 6, 7])
def test_mix_batch__mixup_weights_targets_equally(mode, num_clips):
    for seed in range(5):
        share, bins = mix(num_clips, seed, mixup=0.8, mode=mode)
        if num_clips % 2:
            bins[num_clips // 2] = 1.0
        torch.testing.assert_close(bins, share.view(-1, 1, 1).expand_as(bins))


@pytest.mark.parametrize("options", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 1, "cutmix": 1}])
def test_mix_batch__modes_share_draws(options):
    # Areas of boxes have few values: compare bins too.
    def kept(mode):
        share, bins = mix(8, seed=4, size=(32, 16), **options, mode=mode)
        return list(zip(share.tolist(), bins.round(decimals=6).flatten(1).tolist()))

    batch, pair, elem = (kept(mode) for mode in MODES)
    assert all(clip == batch[0] for clip in batch)
    assert pair == pair[::-1]
    assert all(first != second for first, second in zip(pair[:3], pair[1:4]))
    assert all(elem[i] != elem[j] for i in range(8) for j in range(i))


@pytest.mark.parametrize("alpha", [0.2, 0.8, 5.0])
def test_mix_batch__mixup_shares_follow_the_beta_distribution(alpha):
    share, _ = mix(2000, seed=1, size=(1, 1), mixup=alpha)
    variance = 1 / (4 * (2 * alpha + 1))
    assert_mean(share, 0.5, math.sqrt(variance))
    # No squared deviation exceeds 1/4: its standard deviation is at most sqrt(variance / 4).
    assert_mean((share - 0.5) ** 2, variance, math.sqrt(variance / 4))
    pairs = (share - 0.5) * (share.flip(0) - 0.5)
    assert_mean(pairs[:1000], 0.0, variance)  # partners draw independently


def test_mix_batch__cutmix_shares_follow_the_beta_distribution():
    # Boxes that reach over the border are cut off, so most clips keep more than they drew. With
    # l = 1 - s^2, l uniform, a side of s of the axis keeps s - s^2 / 4 on average over its centre.
    share, bins = mix(2000, seed=2, size=(64, 64), cutmix=1.0)
    # Mean of (s - s^2 / 4)^2 over s^2 uniform: 1/2 - 1/5 + 1/48. Integer sides lose 2 or 3 %.
    assert share.mean().item() == pytest.approx(1 - (1 / 2 - 1 / 5 + 1 / 48), abs=0.03)
    in_box = (1 - bins).mean(dim=0)[8:56, 8:56]  # centres are uniform: no side is preferred
    assert (in_box[:24].mean() - in_box[24:].mean()).abs() < 0.03
    assert (in_box[:, :24].mean() - in_box[:, 24:].mean()).abs() < 0.03


def test_mix_batch__weights_targets_equally_with_mixup_and_cutmix():
    share, bins = mix(40, size=(16, 16), mixup=1.0, cutmix=1.0)
    torch.testing.assert_close(bins.mean(dim=(1, 2)), share, atol=1e-6, rtol=0)
    is_cut = bins.amax(dim=(1, 2)) - bins.amin(dim=(1, 2)) > 0.5
    assert is_cut.any()
    assert not is_cut.all()


def test_mix_batch__switches_between_mixup_and_cutmix():
    def share_of_cutmix(switch_prob, prob=1.0):
        options = {"mixup": 5.0, "cutmix": 5.0, "switch_prob": switch_prob, "prob": prob}
        share, bins = mix(400, 3, size=(32, 32), **options)
        bins = bins[share < 1]  # mixed clips
        return (bins.amax(dim=(1, 2)) - bins.amin(dim=(1, 2)) > 0.5).double()

    assert not share_of_cutmix(0.0).any()
    assert share_of_cutmix(1.0).all()
    assert_mean(share_of_cutmix(0.25), 0.25, math.sqrt(0.25 * 0.75))
    assert_mean(share_of_cutmix(0.25, prob=0.5), 0.25, math.sqrt(0.25 * 0.75))


@pytest.mark.parametrize("options", [{"mixup": 5.0}, {"cutmix": 5.0}, {"mixup": 5, "cutmix": 5}])
@pytest.mark.parametrize("mode", MODES)
def test_mix_batch__mixes_with_the_given_probability(mode, options):
    shares = [mix(60, seed, **options, prob=0.25, mode=mode)[0] for seed in range(40)]
    mixed = (torch.stack(shares) < 1).double()  # [40, 60]
    if mode == "batch":
        assert mixed.std(dim=1).eq(0).all()
        mixed = mixed[:, :1]
    elif mode == "pair":
        assert torch.equal(mixed, mixed.flip(1))
        mixed = mixed[:, :30]
    assert_mean(mixed.flatten(), 0.25, math.sqrt(0.25 * 0.75))


@pytest.mark.parametrize(
    "options", [{}, {"mixup": 1.0, "prob": 0.0}, {"mixup": 1.0, "cutmix": 1.0, "prob": 0.0}]
)
def test_mix_batch__changes_nothing_if_off(options):
    settings = {"mixup": 0.0, "cutmix": 0.0, "prob": 1.0, "switch_prob": 0.5, "mode": "batch"}
    source, targets = torch.randn(3, 1, 4, 4), torch.eye(3)
    mixed, mixed_targets, _ = mix_batch(source, targets, **{**settings, **options})
    assert torch.equal(mixed, source)
    assert torch.equal(mixed_targets, targets)


@pytest.mark.parametrize("alphas", [{"mixup": 1.0, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
def test_mix_batch__keeps_arguments_and_types(alphas):
    source, targets = torch.randn(4, 1, 8, 8).half(), torch.eye(4).half()
    before, targets_before = source.clone(), targets.clone()
    options = {"prob": 1.0, "switch_prob": 0.0, "mode": "elem"}
    mixed, mixed_targets, _ = mix_batch(source, targets, **alphas, **options)
    assert not torch.equal(mixed, source)
    assert torch.equal(source, before)
    assert torch.equal(targets, targets_before)
    assert mixed.dtype == mixed_targets.dtype == torch.float16
    torch.manual_seed(0)
    _, from_numbers, _ = mix_batch(source, targets.float(), **alphas, **options)
    torch.manual_seed(0)
    _, from_bool, _ = mix_batch(source, targets.bool(), **alphas, **options)
    assert torch.equal(from_bool, from_numbers)


def test_mix_batch__is_seeded():
    options = {"mixup": 1.0, "cutmix": 1.0, "mode": "elem"}
    first, second, other = (mix(6, seed, **options)[1] for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("mixup", -0.1, "mixup is -0.1; it must be 0"),
        ("cutmix", -1.0, "cutmix is -1.0; it must be 0"),
        ("cutmix", math.nan, "cutmix is nan"),
        ("mixup", math.inf, "mixup is inf"),
        ("prob", 1.5, "^prob is 1.5; it must lie between 0 and 1"),
        ("switch_prob", -0.5, "switch_prob is -0.5; it must lie between 0 and 1"),
        ("mode", "half", "mode is 'half'; choose one of batch, pair, elem"),
    ],
)
def test_mix_batch__refuses_options_out_of_range(option, value, message):
    options = {"mixup": 1.0, "cutmix": 0.0, "prob": 1.0, "switch_prob": 0.0, "mode": "batch"}
    with pytest.raises(ValueError, match=message):
        mix_batch(torch.zeros(2, 1, 4, 4), torch.eye(2), **{**options, option: value})


@pytest.mark.parametrize(
    ("source", "targets"),
    [
        (torch.zeros(2, 4, 4), torch.eye(2)),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2)),
        (torch.zeros(2, 1, 4, 4), torch.eye(3)),
    ],
)
def test_mix_batch__refuses_wrong_shapes(source, targets):
    with pytest.raises(ValueError, match=r"source has shape \[2, .* and targets \[[23]"):
        mix_batch(source, targets, mixup=1.0, cutmix=0, prob=1.0, switch_prob=0, mode="batch")


@pytest.mark.parametrize(
    ("uniform", "frames"),
    [
        # (width of 6, start of 10 - width), both then cut to integers.
        ((0.75, 0.5), range(2, 6)),  # 4.5 wide from 2.75: 2 to 2 + 4
        ((0.999, 0.999), range(4, 9)),  # 5.99 wide from 4.0
        ((0.1, 0.9), range(0)),  # 0.6 wide
        ((0.5, 0.0), range(3)),
    ],
)
def test_mask_spectrogram__by_hand(monkeypatch, uniform, frames):
    monkeypatch.setattr(torch, "rand", lambda *_: torch.tensor(uniform).view(2, 1))
    expected = torch.ones(10, 3)
    expected[list(frames)] = 0
    assert torch.equal(mask_spectrogram(torch.ones(1, 1, 10, 3), 6, 0)[0, 0], expected)
    assert torch.equal(mask_spectrogram(torch.ones(1, 1, 3, 10), 0, 6)[0, 0], expected.T)


def test_mask_spectrogram__masks_one_span_per_axis():
    torch.manual_seed(0)
    source = torch.randn(200, 2, 24, 16)
    before = source.clone()
    got = mask_spectrogram(source, 12.0, 4.0)
    assert got.shape == source.shape
    assert torch.equal(source, before)
    is_masked = got == 0
    assert torch.equal(got[~is_masked], source[~is_masked])
    assert torch.equal(is_masked[:, 0], is_masked[:, 1])  # channels are equal
    in_time, in_mel = is_masked[:, 0].all(dim=2), is_masked[:, 0].all(dim=1)
    assert torch.equal(is_masked[:, 0], in_time[:, :, None] | in_mel[:, None, :])
    for stretch, largest in ((in_time, 12), (in_mel, 4)):
        steps = torch.diff(stretch.int(), dim=1)
        assert (steps.clamp(min=0).sum(dim=1) + stretch[:, 0] <= 1).all()  # at most one span
        widths = stretch.sum(dim=1)
        assert set(widths.tolist()) == set(range(largest))  # int() of less than the largest
        assert_mean(widths, (largest - 1) / 2, math.sqrt((largest**2 - 1) / 12))
    assert len({tuple(row.tolist()) for row in in_time}) > 50  # each clip has its own draw
    # The middle of a span is distributed symmetrically around the centre of the axis.
    assert (in_time.float() @ (torch.arange(24.0) - 11.5)).mean().abs() < 8
    corr = torch.corrcoef(torch.stack([in_time.sum(dim=1), in_mel.sum(dim=1)]).double())[0, 1]
    assert abs(corr) < LIMIT / math.sqrt(200)  # widths of the two axes are independent


def test_mask_spectrogram__smallest_and_largest_width():
    source = torch.ones(50, 1, 8, 8).half()
    assert torch.equal(mask_spectrogram(source, 0, 0), source)
    torch.manual_seed(0)
    most = mask_spectrogram(source, 8, 0)
    assert most.dtype == torch.float16
    assert most.amax(dim=3).sum(dim=(1, 2)).min() == 1  # at most 7 frames of 8


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((11, 0), "time_width is 11; it must lie between 0 and the axis's 10"),
        ((0, 4.5), "mel_width is 4.5; it must lie between 0 and the axis's 4"),
        ((-1, 0), "time_width is -1"),
        ((0, math.nan), "mel_width is nan"),
    ],
)
def test_mask_spectrogram__refuses_wrong_widths(widths, message):
    with pytest.raises(ValueError, match=message):
        mask_spectrogram(torch.zeros(1, 1, 10, 4), *widths)


def test_smooth_targets__by_hand():
    targets = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    expected = torch.tensor([[0.925, 0.025, 0.025, 0.025], [0.475, 0.475, 0.025, 0.025]])
    torch.testing.assert_close(smooth_targets(targets, 0.1), expected)
    assert torch.equal(smooth_targets(targets, 0.0), targets)
    assert targets[0].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("amount", [-0.1, 1.1])
def test_smooth_targets__refuses_an_amount_out_of_range(amount):
    with pytest.raises(ValueError, match=f"amount is {amount}; it must lie between 0 and 1"):
        smooth_targets(torch.eye(2), amount)


def mix_lengths(monkeypatch, own, is_cut, lengths, box=None, **options):
    """Mix ramps of different length with given draws; padding is 0."""
    size = max(lengths)
    steps = torch.arange(size)
    source = torch.stack([(steps < n) * (100.0 * i + steps + 1) for i, n in enumerate(lengths)])
    source = source[:, None, :, None].expand(-1, 1, -1, 2)
    monkeypatch.setattr(
        mixing, "_draw_shares", lambda *_: (torch.tensor(own), torch.tensor(is_cut))
    )
    if box is not None:
        monkeypatch.setattr(torch, "rand", lambda *_: torch.tensor(box))
    settings = {"mixup": 1.0, "cutmix": 1.0, "prob": 1.0, "switch_prob": 0.5, "mode": "elem"}
    return source, mix_batch(
        source, torch.eye(len(lengths)), **settings, lengths=torch.tensor(lengths)
    )


def test_mix_batch__result_has_the_longer_length(monkeypatch):
    source, (mixed, targets, lengths) = mix_lengths(
        monkeypatch, [0.75, 1.0, 0.75], [False] * 3, [2, 3, 4]
    )
    assert lengths.tolist() == [4, 3, 4]  # the second clip is not mixed
    assert mixed[0, 0, :, 0].tolist() == [0.75 + 0.25 * 201, 1.5 + 0.25 * 202, 203, 204]
    assert mixed[2, 0, :, 0].tolist() == [0.75 * 201 + 0.25, 0.75 * 202 + 0.5, 203, 204]
    assert torch.equal(mixed[1], source[1])
    assert targets[0].tolist() == [0.75, 0, 0.25]


def test_mix_batch__an_unmixed_clip_keeps_its_length(monkeypatch):
    source, (mixed, _, lengths) = mix_lengths(monkeypatch, [1.0, 1.0], [False] * 2, [1, 4])
    assert lengths.tolist() == [1, 4]
    assert torch.equal(mixed[0, :, :1], source[0, :, :1])
    assert torch.equal(mixed[1], source[1])


def test_mix_batch__boxes_lie_within_the_longer_clip(monkeypatch):
    # Of 8 frames and 2 bins, a quarter: 4 frames from 2 on, and the second bin.
    source, (mixed, targets, lengths) = mix_lengths(
        monkeypatch, [0.75, 0.75, 1.0], [True, True, False], [4, 16, 8], [[0.5, 0.5]] * 3
    )
    assert lengths.tolist() == [8, 16, 8]
    first, last = source[0, 0, :, 0], source[2, 0, :, 0]
    assert torch.equal(mixed[0, 0, :, 0], torch.cat([first[:4], last[4:]]))
    assert torch.equal(mixed[0, 0, :, 1], torch.cat([first[:2], last[2:]]))
    assert targets[0].tolist() == [0.75, 0, 0.25]
    assert torch.equal(mixed[1], source[1])  # its own partner


def test_mask_spectrogram__lies_within_each_clip(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *_: torch.tensor([[0.75, 0.75], [0.5, 1.0]]))
    lengths = torch.tensor([10, 20])
    got = mask_spectrogram(torch.ones(2, 1, 20, 2), 0.4 * lengths, 0, lengths)
    # 3 wide from (10 - 3) / 2, and 6 wide from 20 - 6.
    assert (got[0, 0, :, 0] == 0).nonzero().flatten().tolist() == [3, 4, 5]
    assert (got[1, 0, :, 0] == 0).nonzero().flatten().tolist() == [14, 15, 16, 17, 18, 19]
