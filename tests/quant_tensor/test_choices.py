"""Functions that choose among values, or put tensors of one grid together: the codes stay as they are."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from brevq.errors import ArgumentError
from brevq.quant_tensor import QuantTensor, Zero

ALL = ["signed", "unsigned", "narrow", "ternary", "binary", "shifted", "shifted signed", "between"]
WITH_ZERO = [kind for kind in ALL if kind not in ("binary", "between")]
WITHOUT_ZERO = ["binary", "between"]
SHAPE = (1, 2, 4, 6)

TOGETHER = {
    "cat": (lambda x, y: torch.cat([x, y], 1), lambda a, b: np.concatenate([a, b], 1)),
    "concat": (lambda x, y: torch.concat((x, y)), lambda a, b: np.concatenate([a, b])),
    "concatenate": (lambda x, y: torch.concatenate((x, y)), lambda a, b: np.concatenate([a, b])),
    "stack": (lambda x, y: torch.stack([x, y], dim=-1), lambda a, b: np.stack([a, b], -1)),
    "hstack": (lambda x, y: torch.hstack([x, y]), lambda a, b: np.hstack([a, b])),
    "vstack": (lambda x, y: torch.vstack([x, y]), lambda a, b: np.vstack([a, b])),
    "dstack": (lambda x, y: torch.dstack([x, y]), lambda a, b: np.dstack([a, b])),
    "column_stack": (lambda x, y: torch.column_stack([x, y]), lambda a, b: np.column_stack([a, b])),
    "tensors=": (lambda x, y: torch.cat(tensors=[x, y], dim=0), lambda a, b: np.concatenate([a, b])),
}
ONE_OR_OTHER = {
    "maximum": (torch.maximum, np.maximum),
    "minimum": (torch.minimum, np.minimum),
    "fmax": (torch.fmax, np.fmax),
    "fmin": (torch.fmin, np.fmin),
    "where": (lambda x, y: torch.where(MASK, x, y), lambda a, b: np.where(MASK, a, b)),
    "method where": (lambda x, y: x.where(MASK, y), lambda a, b: np.where(MASK, a, b)),
}
MASK = torch.arange(24).reshape(4, 6) % 5 == 0


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("name", [*TOGETHER, *ONE_OR_OTHER])
def test_one_kind(qt, name, kind):
    """Tensors of one grid stay on it, in the same bits."""
    function, reference = (TOGETHER | ONE_OR_OTHER)[name]
    x, y = (qt.of_kind(kind, qt.random_codes(kind, (4, 6), i)) for i in range(2))
    got = qt.check(function, reference, x, y)
    assert (x.bit_width, x.signed, x.zero) == (got.bit_width, got.signed, got.zero)


@pytest.mark.parametrize("name", [*TOGETHER, *ONE_OR_OTHER])
@pytest.mark.parametrize(("one", "other", "bits"), [("signed", "unsigned", 5), ("ternary", "signed", 4)])
def test_several_kinds(qt, name, one, other, bits):
    """Tensors of one scale and different widths have the width that holds all their codes."""
    function, reference = (TOGETHER | ONE_OR_OTHER)[name]
    got = qt.check(function, reference, *(qt.of_kind(kind, qt.random_codes(kind, (4, 6))) for kind in (one, other)))
    assert (bits, True) == (got.bit_width, got.signed)


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("grain", ["rows", "columns", "groups", "half", "float"])
def test_granularities_together(qt, name, grain):
    """Tensors of several scales lie side by side, each value with its own."""
    function = TOGETHER[name][0]
    x = qt.grains[grain]()
    got = function(x, x)
    assert torch.equal(function(x.value, x.value), got.value)
    assert torch.equal(function(x.int(), x.int()), got.int())


def test_a_shifted_part_is_not_forgotten(qt):
    """One part with a shifted zero-point makes the zero of the whole a shifted one."""
    scales = [[0.5], [0.25], [0.5], [0.25]]
    x = qt.of_kind("unsigned", qt.random_codes("unsigned", (4, 6)), scales)
    y = qt.of_kind("shifted", qt.random_codes("shifted", (4, 6)), scales)
    got = torch.cat([x, y])
    assert (Zero.SHIFTED, True) == (got.zero, got.is_valid)


@pytest.mark.parametrize("name", [*TOGETHER, *ONE_OR_OTHER])
def test_unequal_formats(qt, name):
    """Tensors of different formats, or of which one is plain, give plain tensors."""
    function = (TOGETHER | ONE_OR_OTHER)[name][0]
    x = qt.of_kind("signed", qt.random_codes("signed", (4, 6)))
    others = [x.value, qt.floating(np.ones((4, 6))), *(qt.of_kind(kind, np.ones((4, 6))) for kind in WITHOUT_ZERO)]
    for y in others:
        got = [function(x, y), function(y, x)]
        assert all(isinstance(z, torch.Tensor) for z in got)


@pytest.mark.parametrize("name", ONE_OR_OTHER)
def test_two_scales(qt, name):
    """Choosing between numbers of two scales is refused, as putting them together is."""
    x, y = (qt.of_kind("signed", np.ones((4, 6)), scale) for scale in (0.5, 0.25))
    with pytest.raises(ArgumentError, match="different scales"):
        ONE_OR_OTHER[name][0](x, y)


ZEROS = {
    "relu": (torch.relu, lambda c: np.maximum(c, 0)),
    "F.relu": (F.relu, lambda c: np.maximum(c, 0)),
    "clamp": (lambda x: x.clamp(min=0), lambda c: np.maximum(c, 0)),
    "clamp_min": (lambda x: torch.clamp_min(x, 0), lambda c: np.maximum(c, 0)),
    "clip": (lambda x: torch.clip(x, 0.0), lambda c: np.maximum(c, 0)),
    "clamp_max": (lambda x: x.clamp_max(0), lambda c: np.minimum(c, 0)),
    "masked_fill": (lambda x: x.masked_fill(x > 0, 0), lambda c: np.where(c > 0, 0, c)),
    "masked_fill, value=": (lambda x: x.masked_fill(mask=MASK, value=0.0), lambda c: np.where(MASK, 0, c)),
    "masked_fill that broadcasts": (
        lambda x: x.masked_fill(MASK.expand(3, 4, 6), 0),
        lambda c: np.broadcast_to(np.where(MASK, 0, c), (3, *SHAPE[1:])),
    ),
    "where": (lambda x: torch.where(MASK, x, 0), lambda c: np.where(MASK, c, 0)),
    "where, the other way": (lambda x: torch.where(MASK, 0.0, x), lambda c: np.where(MASK, 0, c)),
    "tril": (torch.tril, np.tril),
    "triu": (lambda x: torch.triu(x, 1), lambda c: np.triu(c, 1)),
    "pad": (lambda x: F.pad(x, (1, 2)), lambda c: np.pad(c, ((0, 0), (0, 0), (0, 0), (1, 2)))),
    "pad, value=": (lambda x: F.pad(x, (1, -1), value=0), lambda c: np.pad(c, [(0, 0)] * 3 + [(1, 0)])[..., :-1]),
    "constant_pad_nd": (lambda x: torch.constant_pad_nd(x, (2, 0), 0.0), lambda c: np.pad(c, [(0, 0)] * 3 + [(2, 0)])),
}


@pytest.mark.parametrize("name", [name for name in ZEROS if "broadcasts" not in name])
@pytest.mark.parametrize("kind", WITH_ZERO)
def test_zeros(qt, name, kind):
    """Where zero has a code, values that become zero stay on the grid."""
    function, reference = ZEROS[name]
    x = qt.of_kind(kind, qt.random_codes(kind, SHAPE))
    got = qt.check(function, reference, x)
    assert (x.bit_width, x.signed, x.zero) == (got.bit_width, got.signed, got.zero)


@pytest.mark.parametrize("name", [name for name in ZEROS if "broadcasts" not in name])
@pytest.mark.parametrize("kind", WITHOUT_ZERO)
def test_zeros_without_a_code(qt, name, kind):
    """Where zero has no code, values that become zero make the tensor plain."""
    x = qt.of_kind(kind, qt.random_codes(kind, SHAPE))
    assert isinstance(ZEROS[name][0](x), torch.Tensor)


@pytest.mark.parametrize("grain", ["rows", "columns", "groups", "half", "float"])
@pytest.mark.parametrize("name", [name for name in ZEROS if "pad" not in name])
def test_zeros_of_all_granularities(qt, name, grain):
    """Values become zero whatever scale they have, and whether or not the mask makes more of them."""
    x, function = qt.grains[grain](), ZEROS[name][0]
    got = function(x)
    assert isinstance(got, QuantTensor)
    assert torch.equal(function(x.value), got.value)
    assert got.is_valid


CHOICES = {
    "max": (lambda x: x.max(), lambda c: c.max()),
    "min": (torch.min, lambda c: c.min()),
    "amax": (lambda x: x.amax((0, 2)), lambda c: c.max((0, 2))),
    "amin": (lambda x: torch.amin(x, 1, keepdim=True), lambda c: c.min(1, keepdims=True)),
    "max along": (lambda x: x.max(dim=1).values, lambda c: c.max(1)),
    "min along": (lambda x: torch.min(x, 2)[0], lambda c: c.min(2)),
    "sort": (lambda x: x.sort(-1)[0], lambda c: np.sort(c, -1)),
    "msort": (torch.msort, lambda c: np.sort(c, 0)),
    "topk": (lambda x: x.topk(2).values, lambda c: -np.sort(-c, -1)[..., :2]),
    "kthvalue": (lambda x: torch.kthvalue(x, 2, -1)[0], lambda c: np.sort(c, -1)[..., 1]),
    "median": (lambda x: x.median(), lambda c: np.sort(c.ravel())[(c.size - 1) // 2]),
    "median along": (lambda x: x.median(-1).values, lambda c: np.sort(c, -1)[..., 2]),
    "cummax": (lambda x: torch.cummax(x, -1).values, lambda c: np.maximum.accumulate(c, -1)),
    "cummin": (lambda x: x.cummin(0)[0], lambda c: np.minimum.accumulate(c, 0)),
}


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("kind", ALL)
def test_choices(qt, name, kind):
    """Some of the values stay on their grid."""
    function, reference = CHOICES[name]
    x = qt.of_kind(kind, qt.random_codes(kind, SHAPE))
    got = qt.check(function, reference, x)
    assert (x.bit_width, x.signed, x.zero) == (got.bit_width, got.signed, got.zero)


def test_indices_come_along(qt):
    """What names values and indices in torch does so here, with quantized values and plain indices."""
    x = qt.of_kind("signed", [[1, 3, 2]])
    values, indices = x.max(dim=1)
    assert ([3], [1]) == (values.int().tolist(), indices.tolist())
    assert torch.return_types.max is type(x.max(dim=1))
    assert [2] == F.max_pool1d(x, 3, return_indices=True)[1].flatten().add(1).tolist()


def pooled(codes, size):
    """The largest code of each window of one size over the last axis."""
    return codes.reshape(*codes.shape[:-1], -1, size).max(-1)


POOLS = {
    "1d": (lambda x: F.max_pool1d(x[0], 2), lambda c: pooled(c[0], 2)),
    "2d": (lambda x: F.max_pool2d(x, (1, 3)), lambda c: pooled(c, 3)),
    "3d": (lambda x: F.max_pool3d(x, (1, 1, 2)), lambda c: pooled(c, 2)),
    "with indices": (lambda x: F.max_pool2d(x, (1, 3), return_indices=True)[0], lambda c: pooled(c, 3)),
    "with padding": (lambda x: F.max_pool1d(x[0], 3, stride=6, padding=1), lambda c: pooled(c[0, ..., :2], 2)),
    "adaptive 1d": (lambda x: F.adaptive_max_pool1d(x[0], 3), lambda c: pooled(c[0], 2)),
    "adaptive 2d": (lambda x: F.adaptive_max_pool2d(x, (4, 2)), lambda c: pooled(c, 3)),
    "adaptive 3d": (lambda x: F.adaptive_max_pool3d(x, (2, 4, 1)), lambda c: pooled(c, 6)),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), lambda c: c.repeat(2, -1).repeat(2, -2)),
    "nearest-exact": (
        lambda x: F.interpolate(x, (8, 12), mode="nearest-exact"),
        lambda c: c.repeat(2, -1).repeat(2, -2),
    ),
    "reflect": (lambda x: F.pad(x[0], (1, 1), "reflect"), lambda c: np.pad(c[0], [(0, 0)] * 2 + [(1, 1)], "reflect")),
    "replicate": (
        lambda x: F.pad(x, (1, 1, 0, 0), mode="replicate"),
        lambda c: np.pad(c, [(0, 0)] * 3 + [(1, 1)], "edge"),
    ),
    "circular": (
        lambda x: F.pad(x, (1, 1, 0, 0), mode="circular"),
        lambda c: np.pad(c, [(0, 0)] * 3 + [(1, 1)], "wrap"),
    ),
}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", POOLS)
def test_pooling_and_resampling(qt, name, kind, per_channel):
    """Windows and neighbours within a channel, which shares a scale."""
    scale = 2.0 ** -np.arange(2).reshape(2, 1, 1) if per_channel and "3d" not in name else 0.5
    qt.check(*POOLS[name], qt.of_kind(kind, qt.random_codes(kind, SHAPE), scale))


def test_windows(qt):
    """Windows side by side, from the method along one axis and from the function over an image."""
    x = qt.of_kind("shifted", qt.random_codes("shifted", SHAPE))
    same = torch.tensor(qt.centred(x))
    assert np.array_equal(same.unfold(3, 2, 2), qt.centred(x.unfold(3, 2, 2)))
    assert np.array_equal(F.unfold(same, 2, padding=1), qt.centred(F.unfold(x, 2, padding=1)))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.max(x, torch.full((6,), 0.3)),
        lambda x: torch.max(x, other=torch.full((6,), 0.3)),
        lambda x: x.clamp(-1, 1),
        lambda x: x.clamp(torch.zeros(6)),
        F.relu6,
        F.hardtanh,
        lambda x: F.pad(x, (1, 1), value=0.3),
        lambda x: torch.constant_pad_nd(x, (1, 1), 0.3),
        lambda x: x.masked_fill(MASK, 0.3),
        lambda x: x.masked_fill(MASK, torch.tensor(0.0)),
        lambda x: torch.where(MASK, x, 0.3),
        lambda x: torch.where(MASK, x, torch.zeros(6)),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
        lambda x: x.softmax(-1),
    ],
)
def test_what_leaves_the_grid(qt, function):
    """Bounds and fillings other than zero, other tensors, and values between values are plain."""
    x = qt.of_kind("signed", qt.random_codes("signed", SHAPE))
    assert torch.equal(function(x.value), function(x))


@pytest.mark.parametrize("name", ["max", "sort", "topk", "median along"])
def test_choices_among_scales(qt, name):
    """Values of several scales are no codes to choose among: what comes is plain."""
    x = qt.of_kind("signed", qt.random_codes("signed", SHAPE), [[[0.5]], [[0.25]]])
    assert isinstance(CHOICES[name][0](x), torch.Tensor)


@pytest.mark.parametrize("name", [name for name in (*ZEROS, *CHOICES, *POOLS) if "broadcasts" not in name])
def test_gradients(qt, name):
    """Gradients are those of plain tensors."""
    function = (ZEROS | CHOICES | POOLS)[name][0]
    x = qt.of_kind("signed", qt.random_codes("signed", SHAPE))
    leaf = x.value.clone().requires_grad_()
    x.requires_grad_()
    function(x).value.square().sum().backward()
    function(leaf).square().sum().backward()
    assert torch.equal(leaf.grad, x.grad)
